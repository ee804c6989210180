//! A mutex whose holder cannot leave a value half changed.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lock `mutex`, also after a thread panicked while it held the lock: the values behind our mutexes
/// are changed in one step.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
