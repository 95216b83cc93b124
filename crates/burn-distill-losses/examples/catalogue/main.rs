//! Writes what the book and the README say of the losses from the catalogue, between markers:
//! `cargo run --release -p burn-distill-losses --example catalogue`.

mod tables;

use std::{fs, path::Path};

use burn_distill_losses::LOSSES;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for section in tables::sections() {
        let path = root.join(section.file);
        let mut file = fs::read_to_string(&path)?;
        let [begin, end] = &section.markers;
        let missing = || format!("{} has no markers `{}` and `{}`", section.file, begin.trim(), end.trim());
        let from = file.find(begin).ok_or_else(missing)? + begin.len();
        let to = file.find(end).ok_or_else(missing)?;
        file.replace_range(from..to, &section.text);
        fs::write(&path, file)?;
    }
    println!("{} losses", LOSSES.len());
    Ok(())
}
