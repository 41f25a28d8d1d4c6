//! What brings in what people have already.

use std::path::PathBuf;

use clap::Args;
use kiln_model::ImageName;

/// `kiln import`
#[derive(Debug, Args)]
pub struct Import {
    /// A Containerfile or Dockerfile, or an image as `oci` of a recipe names it: debian:bookworm, oci:DIR:TAG
    #[arg(value_name = "FROM")]
    pub from: String,
    /// Where to write image.toml; beside the Containerfile, or a new directory of the image's name, where nothing is said
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// The image's name; that of the directory or the image where nothing is said
    #[arg(long)]
    pub name: Option<ImageName>,
}

/// `kiln survey`
#[derive(Debug, Args)]
pub struct Survey {
    /// The root of its files: `/` for this machine, or where a disk or a copy of another one is mounted
    #[arg(value_name = "ROOT", default_value = "/")]
    pub root: PathBuf,
    /// Write a recipe and the files that it copies into this new directory
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// The name of the drafted image
    #[arg(long, value_name = "NAME", default_value = "surveyed", requires = "to")]
    pub name: ImageName,
    /// Leave this directory of it out; may be given several times
    #[arg(long, value_name = "PATH")]
    pub except: Vec<String>,
}
