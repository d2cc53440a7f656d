//! The workspace as Cargo sees it, and how programs are built and started.
//!
//! Never knows: which steps a command consists of.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::{Message, Metadata, MetadataCommand};

/// The package of the server, and its binary.
const SERVER: &str = "minisgl-server";
const SERVER_BINARY: &str = "minisgl";

/// How to compile.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dev => "dev",
            Self::Release => "release",
        })
    }
}

/// One workspace: where it is and what its manifests say.
pub(crate) struct Workspace {
    metadata: Metadata,
}

impl Workspace {
    /// The workspace that this program is a member of.
    pub(crate) fn open() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        Self::at(root.context("xtask lies in the file system's root")?)
    }

    /// The workspace whose root manifest lies in `root`. Needs no network.
    pub(crate) fn at(root: &Path) -> Result<Self> {
        let metadata =
            MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec()?;
        Ok(Self { metadata })
    }

    pub(crate) fn root(&self) -> &Path {
        self.metadata.workspace_root.as_std_path()
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The Cargo that started us, in the root folder; `args` are separated by blanks.
    pub(crate) fn cargo(&self, args: &str) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(self.root()).args(args.split_whitespace());
        cargo
    }

    /// Runs `cargo build <args>`; returns the binaries and examples it made, sorted.
    pub(crate) fn build(&self, args: &str) -> Result<Vec<PathBuf>> {
        self.executables("build", args)
    }

    /// Builds test binaries with `cargo test --no-run <args>`, and returns them, sorted.
    pub(crate) fn build_tests(&self, args: &str) -> Result<Vec<PathBuf>> {
        self.executables("test --no-run", args)
    }

    fn executables(&self, command: &str, args: &str) -> Result<Vec<PathBuf>> {
        let mut cargo = self.cargo(&format!("{command} --message-format=json-render-diagnostics"));
        let output = cargo
            .args(args.split_whitespace())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo")?;
        ensure!(output.status.success(), "{} failed: {}", command_line(&cargo), output.status);

        let mut executables = Vec::new();
        for message in Message::parse_stream(&output.stdout[..]) {
            if let Message::CompilerArtifact(artifact) = message?
                && let Some(path) = artifact.executable
            {
                executables.push(path.into_std_path_buf());
            }
        }
        executables.sort();
        Ok(executables)
    }

    /// Builds the server's binary and returns its path. Nothing about the machine is asked for at
    /// compile time: the binary finds GPUs and SIMD units itself, when it runs.
    pub(crate) fn build_server(&self, profile: Profile) -> Result<PathBuf> {
        let built =
            self.build(&format!("--package {SERVER} --bin {SERVER_BINARY} --profile {profile}"))?;
        built.into_iter().next().context("cargo built no binary of the server")
    }
}

/// Runs `command` to its end; any exit code but 0 is an error that names the command.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let line = command_line(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("cannot run {line}"))?;
    ensure!(status.success(), "{line} failed: {status}");
    Ok(())
}

/// `command` as one would type it, the program without its folder.
pub(crate) fn command_line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program.file_name().unwrap_or(command.get_program()).display().to_string();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.display().to_string());
    }
    line
}

#[cfg(test)]
mod tests;
