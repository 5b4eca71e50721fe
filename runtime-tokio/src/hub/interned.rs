//! What many connections have in common, kept once.

use std::sync::Arc;

/// How many different values are looked at.
const RECENT: usize = 16;

/// The values that came last. A connection whose value is among them shares it; beyond so many different ones, which
/// are then those of one connection each, every connection has its own.
#[derive(Debug)]
pub(super) struct Interned<T> {
    /// The newest is last.
    recent: Vec<Arc<T>>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { recent: Vec::new() }
    }
}

impl<T: PartialEq> Interned<T> {
    pub(super) fn share(&mut self, value: T) -> Arc<T> {
        let known = self.recent.iter().rposition(|own| **own == value);
        let shared = match known {
            Some(at) => self.recent.remove(at),
            None => Arc::new(value),
        };
        if self.recent.len() >= RECENT {
            self.recent.remove(0);
        }
        self.recent.push(Arc::clone(&shared));
        shared
    }

    /// Forgets what nobody else has.
    pub(super) fn forget(&mut self) {
        self.recent.retain(|own| Arc::strong_count(own) > 1);
        self.recent.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_lately_is_shared_and_what_is_used_no_more_forgotten() {
        let mut interned = Interned::default();
        let first = interned.share("a".to_owned());
        assert!(Arc::ptr_eq(&first, &interned.share("a".to_owned())));
        for n in 1..RECENT {
            interned.share(n.to_string());
        }
        assert!(Arc::ptr_eq(&first, &interned.share("a".to_owned())));
        for n in 0..RECENT {
            interned.share(n.to_string());
        }
        assert!(!Arc::ptr_eq(&first, &interned.share("a".to_owned())));
        assert_eq!(interned.recent.len(), RECENT);
        interned.forget();
        assert_eq!(interned.recent.len(), 0);
    }
}
