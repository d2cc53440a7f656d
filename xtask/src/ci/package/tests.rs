//! Made-up listings.

use super::problems;

#[test]
fn sources_and_readme_are_fine() {
    let listing = ".cargo_vcs_info.json\nCargo.lock\nCargo.toml\nCargo.toml.orig\nREADME.md\n\
                   benches/ops.rs\nsrc/lib.rs\ntests/golden/a/model.safetensors\n";
    assert_eq!(problems(listing), [""; 0]);
}

#[test]
fn leftovers_and_gaps_are_named() {
    let listing = "Cargo.toml\nsrc/lib.rs.orig\nnotes\n.DS_Store\n";
    let problems = problems(listing);
    let places: Vec<_> =
        problems.iter().filter_map(|problem| problem.split_whitespace().next()).collect();
    assert_eq!(places, ["src/lib.rs.orig", "notes", ".DS_Store", "README.md"]);
    assert_eq!(super::problems("README.md\n"), ["src is missing"]);
}
