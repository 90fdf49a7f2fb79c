//! Who is connected: so many at a time, and so many of each user.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::queue::Uid;

/// The connections of each user.
#[derive(Debug)]
pub struct Peers {
    total: usize,
    per_user: usize,
    connected: Mutex<BTreeMap<Uid, usize>>,
}

/// A place among the connections; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    peers: Arc<Peers>,
    uid: Uid,
}

impl Peers {
    /// Places for `total` connections, `per_user` for each user.
    pub fn new(total: usize, per_user: usize) -> Arc<Self> {
        Arc::new(Self { total, per_user, connected: Mutex::default() })
    }

    /// A place for another connection of a user, if there is one.
    pub fn place(self: &Arc<Self>, uid: Uid) -> Option<Place> {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let own = connected.get(&uid).copied().unwrap_or(0);
        if own >= self.per_user || connected.values().sum::<usize>() >= self.total {
            return None;
        }
        connected.insert(uid, own + 1);
        Some(Place { peers: self.clone(), uid })
    }

    /// How many are connected.
    pub fn count(&self) -> usize {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

/// Whether everybody's jobs are a user's own: root's, and the daemon's own user's.
pub fn is_master(uid: Uid) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connected = self.peers.connected.lock().unwrap_or_else(PoisonError::into_inner);
        match connected.get_mut(&self.uid) {
            Some(own) if *own > 1 => *own -= 1,
            _ => _ = connected.remove(&self.uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_come_back() {
        let peers = Peers::new(3, 2);
        let (first, _second) = (peers.place(1).unwrap(), peers.place(1).unwrap());
        assert!(peers.place(1).is_none(), "one user has two at most");
        let _third = peers.place(2).unwrap();
        assert!(peers.place(3).is_none(), "there are three in all");
        drop(first);
        assert_eq!(peers.count(), 2);
        assert!(peers.place(1).is_some());
    }
}
