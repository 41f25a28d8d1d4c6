//! What makes images.

use std::path::PathBuf;

use clap::Args;
use kiln_model::ImageName;

/// `kiln bake`
#[derive(Debug, Args)]
pub struct Bake {
    /// Directory with image.toml; with `--base`, the packages: a name, name=version, or a file (./app_1.2_amd64.deb)
    #[arg(value_name = "DIR|PACKAGE")]
    pub what: Vec<PathBuf>,
    /// Install packages over this, without a recipe: debian:bookworm, ubuntu:noble, an image of this host (its name,
    /// name@channel, name@sha256:… or the first digits of its id), or one of a registry or a file as `oci` of a recipe names it
    #[arg(long, value_name = "IMAGE")]
    pub base: Option<String>,
    /// The image's name; that of the first package where nothing is said
    #[arg(long, requires = "base")]
    pub name: Option<ImageName>,
    /// The unit of a package that becomes the image's service; may be given several times
    #[arg(long, value_name = "UNIT", requires = "base")]
    pub service: Vec<String>,
    /// Keep the recipe, its lock, the packages' files and a fleet in this new directory
    #[arg(long, value_name = "DIR", requires = "base")]
    pub to: Option<PathBuf>,
    /// Bake without the network, from what is cached
    #[arg(long)]
    pub offline: bool,
    /// Fail where kiln.lock is missing or does not fit, instead of resolving
    #[arg(long, conflicts_with = "base")]
    pub locked: bool,
    /// Run every step, also those whose layer is there
    #[arg(long)]
    pub fresh: bool,
    /// Open a shell in the tree of a step that failed
    #[arg(long, conflicts_with = "json")]
    pub shell_on_failure: bool,
    /// Bake twice with another clock, host name, directory and file order, and name the first difference
    #[arg(long, conflicts_with_all = ["shell_on_failure", "fresh"])]
    pub check_reproducible: bool,
}

/// `kiln lock`
#[derive(Debug, Args)]
pub struct Lock {
    /// Directory with image.toml
    #[arg(default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
    /// Take the newest versions, also where the lock fits
    #[arg(long)]
    pub update: bool,
}
