//! The end-to-end test: the release binary, asked from outside by the OpenAI Python client.
//!
//! Never knows: what is asked. The driver and its requirements lie with the server's tests; this
//! module gives them a Python environment of their own in the target folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::workspace::{Profile, Workspace, succeed};

const DRIVER: &str = "minisgl-server/tests/e2e/run.py";
const REQUIREMENTS: &str = "minisgl-server/tests/e2e/requirements.txt";

/// For a Python whose `venv` lacks `ensurepip`, as Debian's does without `python3-venv`.
const VIRTUALENV: &str = "virtualenv==21.15.8";

/// Builds the binary and the environment; returns the command that runs the driver.
///
/// # Errors
/// If the driver or its requirements are missing, or something cannot be built or installed.
pub(crate) fn command(workspace: &Workspace) -> Result<Command> {
    let driver = workspace.root().join(DRIVER);
    ensure!(driver.is_file(), "{DRIVER} does not exist");
    let requirements = workspace.root().join(REQUIREMENTS);
    let target = workspace.metadata().target_directory.as_std_path();
    let python = Environment { target, requirements: &requirements }.prepare(succeed)?;
    let binary = workspace.build_server(Profile::Release)?;
    let mut command = Command::new(python);
    command.arg(driver).arg(binary);
    Ok(command)
}

/// A Python virtual environment in `<target>/e2e-venv` with what `requirements` lists.
struct Environment<'a> {
    target: &'a Path,
    requirements: &'a Path,
}

impl Environment<'_> {
    /// Makes the environment unless it stands already; returns its Python. `run` runs a command to
    /// its end.
    fn prepare(&self, run: impl Fn(&mut Command) -> Result<()>) -> Result<PathBuf> {
        let requirements = fs::read_to_string(self.requirements)
            .with_context(|| format!("cannot read {}", self.requirements.display()))?;
        let folder = self.target.join("e2e-venv");
        let python = folder.join("bin/python");
        // Written last and compared as a whole: a broken or older installation never passes.
        let stamp = folder.join("installed-requirements.txt");
        if python.exists() && fs::read_to_string(&stamp).is_ok_and(|text| text == requirements) {
            return Ok(python);
        }

        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        if run(Command::new("python3").args(["-m", "venv"]).arg(&folder)).is_err() {
            eprintln!("python3 -m venv does not work here; trying virtualenv from PyPI");
            self.virtualenv(&folder, &run).context(
                "cannot make a Python virtual environment; install Python's venv module first \
                 (on Debian and Ubuntu: apt-get install python3-venv)",
            )?;
        }
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        run(pip.arg("--requirement").arg(self.requirements))?;
        fs::write(&stamp, requirements)
            .with_context(|| format!("cannot write {}", stamp.display()))?;
        Ok(python)
    }

    /// Makes the environment with virtualenv, itself kept in the target folder.
    fn virtualenv(&self, folder: &Path, run: impl Fn(&mut Command) -> Result<()>) -> Result<()> {
        let package = self.target.join("e2e-virtualenv");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]).arg(&package);
        run(pip.arg(VIRTUALENV))?;
        let mut virtualenv = Command::new("python3");
        virtualenv.env("PYTHONPATH", &package).args(["-m", "virtualenv", "--quiet", "--clear"]);
        run(virtualenv.arg(folder))
    }
}

#[cfg(test)]
mod tests;
