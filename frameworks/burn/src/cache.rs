//! Plans of the last calls.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use wgpu_attention::Result;

/// What was made for the last calls, of any kind, the newest last.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Vec<Kept>>);

type Kept = Arc<dyn Any + Send + Sync>;

impl Cache {
    /// Plans kept: those of a model's layers, with several lengths each.
    pub(crate) const MOST: usize = 128;

    /// The one of this kind that is the `same`, or a new one in place of the one that was not asked for longest.
    pub(crate) fn get<T: Any + Send + Sync>(
        &self,
        same: impl Fn(&T) -> bool,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<T>> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |kept: &mut Vec<Kept>| {
            let at = kept.iter().rposition(|plan| plan.downcast_ref().is_some_and(&same))?;
            let plan = kept.remove(at);
            kept.push(plan.clone());
            plan.downcast::<T>().ok()
        };
        if let Some(plan) = find(&mut lock()) {
            return Ok(plan);
        }
        // Made outside the lock: it takes long, and two threads that make the same lose only time.
        let made = Arc::new(make()?);
        let mut kept = lock();
        if let Some(plan) = find(&mut kept) {
            return Ok(plan);
        }
        if kept.len() == Self::MOST {
            kept.remove(0);
        }
        kept.push(made.clone());
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(cache: &Cache, n: usize) -> usize {
        *cache.get(|&own| own == n, || Ok(n)).expect("a number")
    }

    #[test]
    fn the_plan_that_was_not_asked_for_longest_goes() {
        let cache = Cache::default();
        let known = |n: usize| cache.0.lock().unwrap().iter().any(|own| own.downcast_ref() == Some(&n));
        (0..Cache::MOST).for_each(|n| assert_eq!(get(&cache, n), n));
        assert_eq!(get(&cache, 0), 0);
        assert_eq!(get(&cache, 1000), 1000);
        assert!(known(0) && !known(1) && known(2) && known(1000));
        assert_eq!(cache.0.lock().unwrap().len(), Cache::MOST);
    }

    #[test]
    fn what_is_known_is_not_made_again() {
        let cache = Cache::default();
        get(&cache, 7);
        assert_eq!(*cache.get(|own: &usize| *own == 7, || unreachable!()).unwrap(), 7);
        // Another kind is another plan.
        assert_eq!(*cache.get(|_: &u8| true, || Ok(9u8)).unwrap(), 9);
        let refused =
            cache.get(|own: &usize| *own == 8, || Err(wgpu_attention::Error::argument("n", "7", 8)));
        assert_eq!(refused.unwrap_err().to_string(), "n: need 7, got 8");
    }
}
