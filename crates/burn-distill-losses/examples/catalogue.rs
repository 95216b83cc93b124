//! Writes the tables of `docs/src/choosing-a-loss.md` from the catalogue, between its markers:
//! `cargo run --release -p burn-distill-losses --example catalogue`.

use std::{fmt::Write, fs, path::Path};

use burn_distill_losses::{Family, LOSSES, LossInfo};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/choosing-a-loss.md");
    let mut book = fs::read_to_string(&path)?;
    for family in Family::ALL {
        let (begin, end) = (format!("<!-- {family}: begin -->\n"), format!("<!-- {family}: end -->"));
        let missing = || format!("{} has no markers `{}` and `{end}`", path.display(), begin.trim());
        let from = book.find(&begin).ok_or_else(missing)? + begin.len();
        let to = book.find(&end).ok_or_else(missing)?;
        let mut table = String::from(LossInfo::TABLE_HEAD);
        for loss in LOSSES.iter().filter(|loss| loss.family == family) {
            write!(table, "{loss}")?;
        }
        book.replace_range(from..to, &table);
    }
    fs::write(&path, book)?;
    println!("{} losses in {}", LOSSES.len(), path.display());
    Ok(())
}
