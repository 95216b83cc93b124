//! The catalogue names every loss, and the book's tables are made from it.

use std::{collections::BTreeSet, path::Path};

use burn_distill_losses::{Family, LOSSES};

#[path = "../../examples/catalogue/tables.rs"]
mod tables;

use crate::table::{feature_losses, logit_losses, other_losses};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_loss_has_a_row_in_the_suite_and_in_the_benches() {
    let catalogued: BTreeSet<_> = LOSSES.iter().map(|loss| loss.name).collect();
    assert_eq!(catalogued.len(), LOSSES.len(), "a name stands twice");
    let tested = logit_losses().iter().map(|loss| loss.name).collect::<Vec<_>>();
    let tested: BTreeSet<_> = (tested.into_iter())
        .chain(feature_losses().iter().map(|loss| loss.name))
        .chain(other_losses().iter().map(|loss| loss.name))
        .collect();
    assert_eq!(tested, catalogued);
    let benches = read("benches/benches/losses.rs");
    for name in catalogued {
        assert!(benches.contains(&format!("\"{name}\",")), "`{name}` has no row in benches/benches/losses.rs");
    }
}

#[test]
fn rows_are_complete_and_in_the_order_of_the_families() {
    let order: Vec<_> =
        LOSSES.iter().map(|loss| Family::ALL.iter().position(|family| *family == loss.family)).collect();
    assert!(order.is_sorted(), "{order:?}");
    for loss in LOSSES {
        assert!(!loss.types.is_empty() && !loss.needs.is_empty(), "{}", loss.name);
        for (field, text) in [
            ("compares", loss.compares),
            ("cost", loss.cost),
            ("evidence", loss.evidence),
            ("reference", loss.reference),
        ] {
            assert!(!text.is_empty(), "{}: `{field}` is empty", loss.name);
        }
        // What follows makes the link to the paper.
        if let Some((_, number)) = loss.reference.split_once("arXiv ") {
            let digits = number.split('.').map(str::len).collect::<Vec<_>>();
            let valid = matches!(digits[..], [4, 4 | 5]) && number.chars().all(|c| c == '.' || c.is_ascii_digit());
            assert!(valid, "{}: arXiv {number}", loss.name);
        }
        for text in [loss.compares, loss.learns, loss.cost, loss.evidence, loss.weight, loss.reference] {
            assert!(!text.contains(['|', '\n']), "{}: a cell of a table cannot hold {text:?}", loss.name);
        }
    }
}

#[test]
fn the_book_and_the_readme_show_the_catalogue_as_it_is() {
    for tables::Section { file, markers: [begin, end], text } in tables::sections() {
        assert!(
            read(file).contains(&format!("{begin}{text}{end}")),
            "what {file} has after {begin} is not what the code says; \
             `cargo run --release -p burn-distill-losses --example catalogue` writes it"
        );
    }
}
