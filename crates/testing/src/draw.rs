use wgpu_attention::reference::Counter;

/// Seeded choices, one after another.
pub struct Draw {
    numbers: Counter,
    next: u64,
}

impl Draw {
    /// The same seed and stream, the same choices.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { numbers: Counter::new(seed, stream), next: 0 }
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.next += 1;
        self.numbers.bits(self.next)
    }

    /// One of `0..size`; 0 where there is nothing to choose from.
    pub fn below(&mut self, size: usize) -> usize {
        (self.bits() % size.max(1) as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of a list.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// A permutation of `0..len` (Fisher and Yates).
    pub fn permutation(&mut self, len: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len as u32).collect();
        for place in (1..len).rev() {
            order.swap(place, self.below(place + 1));
        }
        order
    }
}
