//! The environment's life, with a stand-in for Python that notes what it was asked.

use std::{cell::RefCell, fs, path::Path, process::Command};

use anyhow::{Result, bail};
use tempfile::TempDir;

use super::Environment;
use crate::workspace::command_line;

/// A target folder, and the commands run in it. Commands that contain an entry of `broken` fail.
struct Stage {
    folder: TempDir,
    broken: Vec<&'static str>,
    ran: RefCell<Vec<String>>,
}

impl Stage {
    fn new(broken: &[&'static str]) -> Self {
        let stage = Self {
            folder: tempfile::tempdir().unwrap(),
            broken: broken.to_vec(),
            ran: RefCell::default(),
        };
        stage.require("openai==1\n");
        stage
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn require(&self, requirements: &str) {
        fs::write(self.path("requirements.txt"), requirements).unwrap();
    }

    /// Prepares the environment; returns the commands that took.
    fn prepare(&self) -> Result<Vec<String>> {
        let requirements = self.folder.path().join("requirements.txt");
        let environment = Environment { target: self.folder.path(), requirements: &requirements };
        let python = environment.prepare(|command| self.run(command))?;
        assert_eq!(python, Path::new(&self.path("e2e-venv/bin/python")));
        Ok(self.ran.take())
    }

    fn run(&self, command: &mut Command) -> Result<()> {
        let line = command_line(command).replace(&self.path(""), "");
        self.ran.borrow_mut().push(line.clone());
        if self.broken.iter().any(|part| line.contains(part)) {
            bail!("{line} failed");
        }
        if line.ends_with("e2e-venv") {
            fs::create_dir_all(self.path("e2e-venv/bin")).unwrap();
            fs::write(self.path("e2e-venv/bin/python"), "").unwrap();
        }
        Ok(())
    }
}

const VENV: &str = "python3 -m venv e2e-venv";
const INSTALL: &str = "python -m pip install --quiet --disable-pip-version-check \
                       --requirement requirements.txt";

#[test]
fn the_second_run_installs_nothing() {
    let stage = Stage::new(&[]);
    assert_eq!(stage.prepare().unwrap(), [VENV, INSTALL]);
    assert!(stage.prepare().unwrap().is_empty());
}

#[test]
fn new_requirements_or_a_lost_python_mean_a_new_environment() {
    let stage = Stage::new(&[]);
    stage.prepare().unwrap();
    fs::write(stage.path("e2e-venv/leftover"), "").unwrap();
    stage.require("openai==2\n");
    assert_eq!(stage.prepare().unwrap(), [VENV, INSTALL]);
    assert!(!Path::new(&stage.path("e2e-venv/leftover")).exists());

    fs::remove_file(stage.path("e2e-venv/bin/python")).unwrap();
    assert_eq!(stage.prepare().unwrap(), [VENV, INSTALL]);
}

#[test]
fn a_failed_installation_is_tried_again() {
    let mut stage = Stage::new(&["--requirement"]);
    assert!(stage.prepare().is_err());
    stage.broken.clear();
    stage.ran.take();
    assert_eq!(stage.prepare().unwrap(), [VENV, INSTALL]);
}

#[test]
fn without_venv_virtualenv_serves() {
    let stage = Stage::new(&["-m venv"]);
    let ran = stage.prepare().unwrap();
    assert_eq!(ran.len(), 4);
    assert!(ran[1].starts_with("python3 -m pip install"));
    assert!(ran[1].contains("--target e2e-virtualenv virtualenv=="));
    assert_eq!(ran[2], "python3 -m virtualenv --quiet --clear e2e-venv");
    assert_eq!(ran[3], INSTALL);
}

#[test]
fn without_both_the_error_says_what_to_install() {
    let stage = Stage::new(&["-m venv", "-m pip"]);
    let error = stage.prepare().unwrap_err();
    assert!(error.to_string().contains("apt-get install python3-venv"), "{error}");
}

#[test]
fn missing_requirements_are_named() {
    let stage = Stage::new(&[]);
    fs::remove_file(stage.path("requirements.txt")).unwrap();
    let error = stage.prepare().unwrap_err();
    assert!(error.to_string().contains("requirements.txt"), "{error}");
}
