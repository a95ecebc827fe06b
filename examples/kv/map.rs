//! A map that can be copied at once, and is then shared until it is written.
//!
//! Owns: [`Map`]. Knows no operations and no images.
//! Invariants: a copy never changes, whatever is written to the map afterwards; what is iterated over
//! comes in an order that depends on the keys alone.
//!
//! Keys are spread over 65,536 small sorted tables by a hash that is the same everywhere. Tables stand
//! in groups, groups in a root, each behind an `Arc`. A copy is one more owner of the root. A write to
//! what is shared copies the root once (4,096 pointers), a group once (16) and a table once, which at a
//! million keys has 16 entries: some microseconds, whatever the map holds. Each pointer copied counts
//! one more owner in memory that is in no cache, so the copies of the first writes are what a reader
//! of the map waits for: hence many small groups, and one pointer for each entry.

use std::sync::Arc;

use bytes::Bytes;

use crate::digest;

/// Groups in the root.
const GROUPS: usize = 4096;

/// Tables in a group.
const TABLES: usize = 16;

type Entry = Arc<(Bytes, Bytes)>;
type Table = Vec<Entry>;
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
        let group = Arc::new(vec![empty; TABLES]);
        Self { root: Arc::new(vec![group; GROUPS]), len: 0 }
    }
}

fn place(key: &[u8]) -> (usize, usize) {
    let hash = digest::entry(key, &[]) as u64;
    (hash as usize % GROUPS, (hash >> 32) as usize % TABLES)
}

fn find(table: &Table, key: &[u8]) -> Result<usize, usize> {
    table.binary_search_by(|entry| entry.0.as_ref().cmp(key))
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
            Ok(at) => {
                let entry = &mut table[at];
                if let Some((_, held)) = Arc::get_mut(entry) {
                    return Some(std::mem::replace(held, value));
                }
                let changed = Arc::new((entry.0.clone(), value));
                Some(std::mem::replace(entry, changed).1.clone())
            }
            Err(at) => {
                table.insert(at, Arc::new((key.clone(), value)));
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
        let entry = table.remove(at);
        self.len -= 1;
        Some(entry.1.clone())
    }

    /// All keys and values, in an order of their own. What was read is given up at once, so that
    /// freeing what nobody else has any more does not come all at the end, beside the map's writer.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = (Bytes, Bytes)> + Send {
        let groups = std::iter::once(self.root).flat_map(Arc::unwrap_or_clone);
        groups.flat_map(Arc::unwrap_or_clone).flat_map(|table: Arc<Table>| {
            let entries = 0..table.len();
            entries.map(move |at| (*table[at]).clone())
        })
    }
}
