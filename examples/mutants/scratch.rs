//! The scratch copy of the tree, in which patches are applied.
//!
//! Owns: `target/mutants/tree` and `target/mutants/build`, or both in `target/mutants/LANE`. Touches nothing else.
//! Invariant: a file whose contents do not change keeps its time, so that each build does only what
//! a mutant makes necessary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::patch::Mutant;

/// A copy of everything that is tracked, or would be.
pub(crate) struct Scratch {
    root: PathBuf,
    tree: PathBuf,
    target: PathBuf,
    /// What stood in the files that a patch changed: the tree at the root may change meanwhile.
    unbroken: Vec<(PathBuf, Vec<u8>)>,
}

impl Scratch {
    /// Brings the copy up to date with the tree at `root`. Each lane has a copy of its own.
    pub(crate) fn open(root: &Path, lane: Option<&str>) -> Result<Self, String> {
        let base = root.join("target/mutants");
        let base = lane.map_or(base.clone(), |lane| base.join(lane));
        let scratch = Self {
            root: root.to_owned(),
            tree: base.join("tree"),
            target: base.join("build"),
            unbroken: Vec::new(),
        };
        let files = scratch.listed()?;
        for file in &files {
            scratch.copy(file)?;
        }
        scratch.remove_others(&scratch.tree, &files)?;
        Ok(scratch)
    }

    pub(crate) fn tree(&self) -> &Path {
        &self.tree
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    fn listed(&self) -> Result<Vec<PathBuf>, String> {
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&self.root)
            .output()
            .map_err(|error| format!("cannot run git: {error}"))?;
        if !listed.status.success() {
            return Err(String::from_utf8_lossy(&listed.stderr).into_owned());
        }
        let names = String::from_utf8_lossy(&listed.stdout);
        let files = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
        // What is tracked may have been removed since.
        Ok(files.filter(|file| self.root.join(file).is_file()).collect())
    }

    fn copy(&self, file: &Path) -> Result<(), String> {
        let (from, to) = (self.root.join(file), self.tree.join(file));
        let failed = |error| format!("cannot copy {}: {error}", file.display());
        let bytes = fs::read(&from).map_err(failed)?;
        if fs::read(&to).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        fs::write(&to, bytes).map_err(failed)
    }

    /// A test or a module that was removed must not go on living in the copy.
    fn remove_others(&self, dir: &Path, files: &[PathBuf]) -> Result<(), String> {
        let failed = |error| format!("cannot tidy {}: {error}", dir.display());
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                self.remove_others(&path, files)?;
            } else if path
                .strip_prefix(&self.tree)
                .is_ok_and(|file| !files.iter().any(|kept| kept == file))
            {
                fs::remove_file(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Whether a patch applies.
    pub(crate) fn check(&self, mutant: &Mutant) -> Result<(), String> {
        self.git_apply(mutant, &["--check"])
    }

    pub(crate) fn apply(&mut self, mutant: &Mutant) -> Result<(), String> {
        for file in &mutant.files {
            let path = self.tree.join(file);
            let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", file.display()))?;
            self.unbroken.push((path, bytes));
        }
        self.git_apply(mutant, &[])
    }

    fn git_apply(&self, mutant: &Mutant, options: &[&str]) -> Result<(), String> {
        let applied = Command::new("git")
            .arg("apply")
            .args(options)
            .arg(&mutant.path)
            .current_dir(&self.tree)
            // The copy lies within a repository that it is no part of.
            .env("GIT_CEILING_DIRECTORIES", self.root.join("target/mutants"))
            .output()
            .map_err(|error| format!("cannot run git: {error}"))?;
        if applied.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&applied.stderr);
        Err(words.lines().next().unwrap_or_default().to_owned())
    }

    /// Takes the patch back.
    pub(crate) fn restore(&mut self) -> Result<(), String> {
        self.unbroken.drain(..).try_for_each(|(path, bytes)| {
            fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))
        })
    }
}

/// FNV-1a over all parts: the same sample for the same salt on every machine.
pub(crate) fn hash(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
