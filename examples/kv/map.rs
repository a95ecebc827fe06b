//! A map that can be copied at once, and is then shared until it is written.
//!
//! Owns: [`Map`]. Knows no operations and no images.
//! Invariants: a copy never changes, whatever is written to the map afterwards; what is iterated over
//! comes in an order that depends on the keys alone.
//!
//! Keys are spread over 65,536 small sorted tables by a hash that is the same everywhere. Tables stand
//! in groups, groups in a root, each behind an `Arc`. A copy is one more owner of the root. A write to
//! what is shared copies the root once, a group once (256 pointers each) and a table once, which at a
//! million keys has 16 entries: some microseconds, whatever the map holds.

use std::sync::Arc;

use bytes::Bytes;

use crate::digest;

/// Groups in the root, and tables in a group.
const WAYS: usize = 256;

type Table = Vec<(Bytes, Bytes)>;
type Group = Vec<Arc<Table>>;

/// The map.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    root: Arc<Vec<Arc<Group>>>,
    len: usize,
}

impl Default for Map {
    fn default() -> Self {
        let empty: Arc<Table> = Arc::default();
        let group = Arc::new(vec![empty; WAYS]);
        Self { root: Arc::new(vec![group; WAYS]), len: 0 }
    }
}

fn place(key: &[u8]) -> (usize, usize) {
    let hash = digest::entry(key, &[]) as u64;
    (hash as usize % WAYS, (hash >> 32) as usize % WAYS)
}

fn find(table: &Table, key: &[u8]) -> Result<usize, usize> {
    table.binary_search_by(|(held, _)| held.as_ref().cmp(key))
}

impl Map {
    /// How many keys have a value.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let (group, table) = place(key);
        let table = &self.root[group][table];
        find(table, key).ok().map(|at| &table[at].1)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    fn table(&mut self, key: &[u8]) -> &mut Table {
        let (group, table) = place(key);
        let group = Arc::make_mut(&mut Arc::make_mut(&mut self.root)[group]);
        Arc::make_mut(&mut group[table])
    }

    /// Gives the key this value, and returns the one before. Where there was one, the map keeps its
    /// key's bytes.
    pub(crate) fn insert(&mut self, key: &Bytes, value: Bytes) -> Option<Bytes> {
        let table = self.table(key);
        match find(table, key) {
            Ok(at) => Some(std::mem::replace(&mut table[at].1, value)),
            Err(at) => {
                table.insert(at, (key.clone(), value));
                self.len += 1;
                None
            }
        }
    }

    /// Takes the key's value away, and returns it.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Bytes> {
        // What is not there is not copied.
        if !self.contains(key) {
            return None;
        }
        let table = self.table(key);
        let at = find(table, key).ok()?;
        let (_, value) = table.remove(at);
        self.len -= 1;
        Some(value)
    }

    /// All keys and values, in an order of their own.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = (Bytes, Bytes)> + Send {
        let tables = (0..WAYS * WAYS).map(move |at| Arc::clone(&self.root[at / WAYS][at % WAYS]));
        tables.flat_map(|table| {
            let entries = 0..table.len();
            entries.map(move |at| table[at].clone())
        })
    }
}
