//! The packages that Kiln downloaded, as a repository that apt can read from disk.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Outcome, command::output};

/// A flat repository.
pub struct Mirror {
    pub directory: PathBuf,
    /// Names of its packages.
    pub packages: Vec<String>,
}

/// Links every package found under a directory into a repository. Packages are known by their first bytes, whatever
/// the cache calls them.
pub fn mirror(cache: &Path, directory: &Path) -> Outcome<Mirror> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory)?;
    let (mut index, mut packages) = (String::new(), Vec::new());
    for (number, file) in find(cache)?.iter().enumerate() {
        let name = format!("{number}.deb");
        fs::copy(file, directory.join(&name))?;
        let control = control(file)?;
        packages.push(field(&control, "Package").ok_or("a package has a name")?.to_owned());
        let (size, hash) = (fs::metadata(file)?.len(), sha256(file)?);
        write!(index, "{}\nFilename: ./{name}\nSize: {size}\nSHA256: {hash}\n\n", control.trim_end())?;
    }
    if packages.is_empty() {
        return Err(format!("no packages under {}", cache.display()).into());
    }
    fs::write(directory.join("Packages"), index)?;
    fs::write(directory.join("Release"), release(&directory.join("Packages"))?)?;
    Ok(Mirror { directory: directory.to_owned(), packages })
}

/// Names the suite, by which mmdebstrap finds the essential packages.
fn release(index: &Path) -> Outcome<String> {
    let date = String::from_utf8(output(Command::new("date").args(["--utc", "--rfc-email"]))?.stdout)?;
    let (size, hash) = (fs::metadata(index)?.len(), sha256(index)?);
    Ok(format!("Suite: bookworm\nCodename: bookworm\nDate: {date}SHA256:\n {hash} {size} Packages\n"))
}

fn find(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(find(&path)?);
        } else if is_package(&path)? {
            found.push(path);
        }
    }
    Ok(found)
}

fn is_package(path: &Path) -> Outcome<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(21).read_to_end(&mut start)?;
    Ok(start == b"!<arch>\ndebian-binary")
}

fn control(file: &Path) -> Outcome<String> {
    Ok(String::from_utf8(output(Command::new("dpkg-deb").arg("--field").arg(file))?.stdout)?)
}

fn field<'a>(control: &'a str, name: &str) -> Option<&'a str> {
    control.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn sha256(file: &Path) -> Outcome<String> {
    let said = String::from_utf8(output(Command::new("sha256sum").arg(file))?.stdout)?;
    Ok(said.split_whitespace().next().ok_or("sha256sum said nothing")?.to_owned())
}
