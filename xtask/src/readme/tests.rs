//! Finding the command in made-up READMEs.

use super::test_command;

#[test]
fn the_command_comes_without_prompt_and_comment() {
    let plain = "# Title\n```sh\ncargo xtask serve\ncargo xtask test   # all of it\n```\n";
    assert_eq!(test_command(plain).unwrap(), ["cargo", "xtask", "test"]);
    let prompt = "1. Test:\n   ```console\n   $ cargo xtask test --quiet\n   ```\n";
    assert_eq!(test_command(prompt).unwrap(), ["cargo", "xtask", "test", "--quiet"]);
}

#[test]
fn a_mention_in_prose_is_no_command() {
    for readme in ["", "Run cargo xtask test.\n", "```\nls\n```\nRun cargo xtask test.\n"] {
        let error = test_command(readme).unwrap_err();
        assert_eq!(error.to_string(), "README.md has no fenced block with `cargo xtask test`");
    }
}
