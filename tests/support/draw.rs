use wgpu_attention::reference::Counter;

/// Seeded choices, one after another.
pub(crate) struct Draw {
    numbers: Counter,
    next: u64,
}

impl Draw {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self { numbers: Counter::new(seed, stream), next: 0 }
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.next += 1;
        self.numbers.bits(self.next)
    }

    /// One of `0..size`; 0 where there is nothing to choose from.
    pub(crate) fn below(&mut self, size: usize) -> usize {
        (self.bits() % size.max(1) as u64) as usize
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// A permutation of `0..len` (Fisher and Yates).
    pub(crate) fn permutation(&mut self, len: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len as u32).collect();
        for place in (1..len).rev() {
            order.swap(place, self.below(place + 1));
        }
        order
    }
}
