//! The README shows the quickstart as it is, and names commands and files that exist.

use crate::source::{read, root};

/// The most lines of code that the quickstart may have.
const LINES_MAX: usize = 60;

/// The contents of the first fenced block of this language.
fn first_block(text: &str, language: &str) -> String {
    let fence = format!("```{language}\n");
    let (_, rest) = text
        .split_once(&fence)
        .expect("the document has such a block");
    let (block, _) = rest.split_once("```\n").expect("the block ends");
    block.to_owned()
}

#[test]
fn readme_shows_the_quickstart_as_it_is() {
    let readme = read("README.md");
    let first = readme.find("```").expect("the README has a code block");
    assert!(
        readme[first..].starts_with("```rust\n"),
        "the README's first code block is the quickstart"
    );
    assert_eq!(first_block(&readme, "rust"), read("examples/quickstart.rs"));
}

#[test]
fn quickstart_has_at_most_sixty_lines_of_code() {
    let text = read("examples/quickstart.rs");
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count();
    assert!(
        lines <= LINES_MAX,
        "{lines} lines of code, at most {LINES_MAX}"
    );
}

#[test]
fn documents_link_to_files_that_exist() {
    let mut faults = Vec::new();
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ] {
        let text = read(document);
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !root().join(target).exists() {
                faults.push(format!("{document} links to {target}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
