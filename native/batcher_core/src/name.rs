//! The names of lanes.
//!
//! Invariant: no name of `LONG_PREFIX` bytes or more is copied, hashed or compared in the engine; its
//! driver has made a `LongPrefix` of it before.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, OnceLock};

/// A lane's number. It names this lane while that holds something, and no other one afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    /// Used again when the lane is gone.
    pub(crate) place: u32,
    /// Tells the lanes of a place apart, until 2^32 others have come.
    pub(crate) generation: u32,
}

/// From so many bytes on a prefix is given as [`LaneRef::Long`], below as [`LaneRef::Prefix`].
pub const LONG_PREFIX: usize = 1024;

/// A lane's name, owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LaneKey {
    /// The lane of a namespace.
    Prefix(Arc<[u8]>),
    /// The hot lane of `write_batch`.
    Generic,
    /// The hot lane of puts.
    Put,
    /// The hot lane of deletes.
    Delete,
}

/// What kind of lane one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    /// The lane of a namespace.
    Namespace,
    /// The hot lane of `write_batch`.
    Generic,
    /// The hot lane of puts.
    Put,
    /// The hot lane of deletes.
    Delete,
}

impl LaneKey {
    /// The same name, borrowed, however long it is: a [`LongPrefix`] is made of its bytes, not here.
    pub fn borrow(&self) -> LaneRef<'_> {
        match self {
            LaneKey::Prefix(prefix) => LaneRef::Prefix(prefix),
            LaneKey::Generic => LaneRef::Generic,
            LaneKey::Put => LaneRef::Put,
            LaneKey::Delete => LaneRef::Delete,
        }
    }
}

/// A lane's name, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneRef<'a> {
    /// The lane of a namespace, of a name shorter than [`LONG_PREFIX`].
    Prefix(&'a [u8]),
    /// The lane of a namespace, of a longer name.
    Long(&'a LongPrefix),
    /// The hot lane of `write_batch`.
    Generic,
    /// The hot lane of puts.
    Put,
    /// The hot lane of deletes.
    Delete,
}

impl LaneRef<'_> {
    /// What kind of lane it names.
    pub fn kind(self) -> LaneKind {
        match self {
            LaneRef::Prefix(_) | LaneRef::Long(_) => LaneKind::Namespace,
            LaneRef::Generic => LaneKind::Generic,
            LaneRef::Put => LaneKind::Put,
            LaneRef::Delete => LaneKind::Delete,
        }
    }

    /// The same name, owned.
    pub fn to_key(self) -> LaneKey {
        match self {
            LaneRef::Prefix(prefix) => LaneKey::Prefix(prefix.into()),
            LaneRef::Long(prefix) => LaneKey::Prefix(Arc::clone(prefix.bytes())),
            LaneRef::Generic => LaneKey::Generic,
            LaneRef::Put => LaneKey::Put,
            LaneRef::Delete => LaneKey::Delete,
        }
    }
}

/// A long name of a namespace with its digest, made by a driver before it locks the engine. Two of
/// them are equal if their digests and lengths are.
#[derive(Clone, Debug)]
pub struct LongPrefix {
    digest: Digest,
    bytes: Arc<[u8]>,
}

/// Two keyed hashes: without the keys of this process nobody finds two names with the same.
pub(crate) type Digest = [u64; 2];

impl LongPrefix {
    /// Copies and hashes these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        static KEYS: OnceLock<[RandomState; 2]> = OnceLock::new();
        let keys = KEYS.get_or_init(Default::default);
        LongPrefix {
            digest: [keys[0].hash_one(bytes), keys[1].hash_one(bytes)],
            bytes: bytes.into(),
        }
    }

    /// The name itself.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }
}

impl PartialEq for LongPrefix {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.bytes.len() == other.bytes.len()
    }
}

impl Eq for LongPrefix {}

impl Hash for LongPrefix {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
        self.bytes.len().hash(state);
    }
}
