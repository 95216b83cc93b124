//! The catalogue as Markdown; `main.rs` writes it into the book, the suite compares the book with it.

use std::fmt::Write;

use burn_distill_losses::{Family, LOSSES, LossInfo, Need};

const WHAT_IT_TAKES: &str = "\
| loss | compares | needs | learns | grows with |
|---|---|---|---|---|
";

const WHAT_WAS_FOUND: &str = "\
| loss | found to help, or not | published weight | reference |
|---|---|---|---|
";

const BY_NEED: &str = "\
| you have | losses that ask for no more than that |
|---|---|
";

/// A part of a file that is made from the catalogue.
pub(crate) struct Section {
    /// The file, from the root of the repository.
    pub(crate) file: &'static str,
    /// The lines before and after it.
    pub(crate) markers: [String; 2],
    pub(crate) text: String,
}

impl Section {
    fn new(file: &'static str, name: &str, text: String) -> Self {
        Self { file, markers: ["begin", "end"].map(|side| format!("<!-- {name}: {side} -->\n")), text }
    }
}

pub(crate) fn sections() -> Vec<Section> {
    const CHAPTER: &str = "docs/src/choosing-a-loss.md";
    let mut sections = vec![Section::new("README.md", "losses", list()), Section::new(CHAPTER, "needs", by_need())];
    for family in Family::ALL {
        sections.push(Section::new(CHAPTER, &family.to_string(), of_family(family)));
    }
    sections
}

/// The losses of each family, with a link to each paper.
fn list() -> String {
    let mut text = String::new();
    for family in Family::ALL {
        let losses = LOSSES.iter().filter(|loss| loss.family == family);
        let losses: Vec<_> = losses.map(|loss| format!("{} ({})", name(loss), linked(loss.reference))).collect();
        writeln!(text, "- **{family}**: {}", losses.join(", ")).expect("a string takes every write");
    }
    text
}

/// A reference as a link, if it names a paper on arXiv.
fn linked(reference: &str) -> String {
    match reference.split_once(", arXiv ") {
        Some((paper, number)) => format!("[{paper}](https://arxiv.org/abs/{number})"),
        None => reference.into(),
    }
}

fn of_family(family: Family) -> String {
    let losses = || LOSSES.iter().filter(|loss| loss.family == family);
    let mut text = String::from(WHAT_IT_TAKES);
    for loss in losses() {
        let LossInfo { compares, needs, cost, .. } = loss;
        line(&mut text, &[&name(loss), compares, &listed(needs), or_none(loss.learns), cost]);
    }
    text.push('\n');
    text.push_str(WHAT_WAS_FOUND);
    for loss in losses() {
        line(&mut text, &[&name(loss), loss.evidence, or_none(loss.weight), loss.reference]);
    }
    text
}

/// The losses by the set of what they need, in the order in which the catalogue asks for it first.
fn by_need() -> String {
    let mut groups: Vec<(Vec<Need>, Vec<String>)> = Vec::new();
    for loss in LOSSES {
        let mut needs = loss.needs.to_vec();
        needs.sort_by_key(|need| (*need == Need::SameShape, *need));
        match groups.iter_mut().find(|(of_group, _)| *of_group == needs) {
            Some((_, names)) => names.push(name(loss)),
            None => groups.push((needs, vec![name(loss)])),
        }
    }
    groups.sort_by_key(|(needs, _)| (needs.len(), needs.clone()));
    let mut text = String::from(BY_NEED);
    for (needs, names) in groups {
        line(&mut text, &[&listed(&needs), &names.join(", ")]);
    }
    text
}

fn name(loss: &LossInfo) -> String {
    format!("`{}`", loss.types[0])
}

fn listed(needs: &[Need]) -> String {
    needs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn line(text: &mut String, cells: &[&str]) {
    writeln!(text, "| {} |", cells.join(" | ")).expect("a string takes every write");
}
