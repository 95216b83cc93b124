//! Writes the tables of `docs/src/conventions.md`, between its markers: one batch under every convention.
//! `cargo run --release -p burn-distill-losses --example conventions`

mod table;

use std::{fs, path::Path};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/conventions.md");
    let mut book = fs::read_to_string(&path)?;
    for (name, table) in [("conventions", table::conventions()), ("tails", table::tails())] {
        let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
        let missing = || format!("{} has no markers `{}` and `{end}`", path.display(), begin.trim());
        let from = book.find(&begin).ok_or_else(missing)? + begin.len();
        let to = book.find(&end).ok_or_else(missing)?;
        print!("{table}");
        book.replace_range(from..to, &table);
    }
    fs::write(&path, book)?;
    Ok(())
}
