//! dpkg's database in a tree (`/var/lib/dpkg`), read and written as dpkg does: `status`, `info/`, `triggers/`,
//! diversions and overrides.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
};

use super::{
    control::Paragraph,
    deb::Deb,
    index::MultiArch,
    resolve::Installed,
    root::Root,
    unpack::{Contents, Rules},
};

const DATABASE: &str = "var/lib/dpkg";
const STATUS: &str = "var/lib/dpkg/status";

/// The packages of a status file that are installed.
pub fn installed(status: &str) -> Vec<Installed> {
    let there = |paragraph: &Paragraph| {
        let state = paragraph.text("Status").rsplit(' ').next().unwrap_or_default().to_owned();
        !matches!(state.as_str(), "not-installed" | "config-files" | "half-installed" | "")
    };
    let paragraphs = Paragraph::read_all(status).into_iter().filter(there);
    paragraphs
        .map(|paragraph| Installed {
            name: paragraph.text("Package").to_owned(),
            version: paragraph.text("Version").to_owned(),
            provides: paragraph.text("Provides").to_owned(),
            conflicts: paragraph.text("Conflicts").to_owned(),
            breaks: paragraph.text("Breaks").to_owned(),
            multi_arch: match paragraph.text("Multi-Arch") {
                "same" => MultiArch::Same,
                "foreign" => MultiArch::Foreign,
                "allowed" => MultiArch::Allowed,
                _ => MultiArch::No,
            },
        })
        .collect()
}

/// The packages installed in a tree; none for an empty one.
pub fn installed_in(root: &Root) -> io::Result<Vec<Installed>> {
    Ok(installed(&root.read_text(STATUS)?))
}

/// An empty database.
pub fn create(root: &Root) -> io::Result<()> {
    for directory in ["info", "updates", "triggers", "alternatives", "parts"] {
        root.make_directories(&format!("{DATABASE}/{directory}"))?;
    }
    root.write(&format!("{DATABASE}/info/format"), b"1\n", 0o644)?;
    root.write(STATUS, b"", 0o644)
}

/// Where the control files of a package wait for its `preinst` to run; the script moves them to `tmp.ci`, where dpkg has
/// them at that time and debconf looks for them.
pub fn write_before_unpacking(root: &Root, deb: &Deb) -> io::Result<()> {
    let directory = format!("{DATABASE}/tmp.kiln/{}", deb.info_name());
    root.make_directories(&directory)?;
    root.write(&format!("{directory}/control"), deb.control.to_string().as_bytes(), 0o644)?;
    for (name, (content, mode)) in &deb.files {
        root.write(&format!("{directory}/{name}"), content, *mode)?;
    }
    Ok(())
}

/// Writes the control files of a package into `info/`.
fn write_info(root: &Root, deb: &Deb) -> io::Result<()> {
    for (name, (content, mode)) in &deb.files {
        root.write(&info_path(deb, name), content, *mode)?;
    }
    Ok(())
}

fn info_path(deb: &Deb, name: &str) -> String {
    format!("{DATABASE}/info/{}.{name}", deb.info_name())
}

/// Records packages as unpacked: control files, lists, hashes, status, interests in triggers, and which triggers their files set off.
pub fn write_unpacked(root: &Root, unpacked: &[(&Deb, Contents)]) -> io::Result<()> {
    for (deb, contents) in unpacked {
        write_info(root, deb)?;
        let list: String = contents.list.iter().map(|path| format!("{path}\n")).collect();
        root.write(&info_path(deb, "list"), list.as_bytes(), 0o644)?;
        if !deb.files.contains_key("md5sums") {
            root.write(&info_path(deb, "md5sums"), md5sums(deb, contents).as_bytes(), 0o644)?;
        }
    }
    write_status(root, unpacked)?;
    activate_triggers(root, unpacked)?;
    write_interests(root, unpacked)
}

/// What dpkg makes for a package that brings no `md5sums`: conffiles are not in it.
fn md5sums(deb: &Deb, contents: &Contents) -> String {
    let conffiles = deb.text("conffiles");
    let hashes = contents.md5.iter().filter(|(path, _)| !conffiles.lines().any(|line| line.trim() == *path));
    hashes.map(|(path, hash)| format!("{hash}  {}\n", path.trim_start_matches('/'))).collect()
}

fn write_status(root: &Root, unpacked: &[(&Deb, Contents)]) -> io::Result<()> {
    let mut paragraphs = Paragraph::read_all(&root.read_text(STATUS)?);
    paragraphs.retain(|old| !unpacked.iter().any(|(deb, _)| old.get("Package") == Some(deb.name())));
    paragraphs.extend(unpacked.iter().map(|(deb, contents)| status_of(deb, contents)));
    write_paragraphs(root, paragraphs)
}

fn status_of(deb: &Deb, contents: &Contents) -> Paragraph {
    let mut paragraph = deb.control.clone();
    paragraph.insert_after("Package", "Status", "install ok unpacked");
    let text = deb.text("conffiles");
    let conffiles = text.lines().map(str::trim).filter_map(|path| Some((path, contents.md5.get(path)?)));
    let lines: String = conffiles.map(|(path, hash)| format!("\n {path} {hash}")).collect();
    if !lines.is_empty() {
        paragraph.insert_after("Version", "Conffiles", lines);
    }
    paragraph
}

fn write_paragraphs(root: &Root, mut paragraphs: Vec<Paragraph>) -> io::Result<()> {
    paragraphs.sort_by(|a, b| a.text("Package").cmp(b.text("Package")));
    let text: String = paragraphs.iter().map(|paragraph| format!("{paragraph}\n")).collect();
    root.write(STATUS, text.as_bytes(), 0o644)
}

/// Puts the status file in the order of names: dpkg writes it in the order of its hash table.
pub fn sort_status(root: &Root) -> io::Result<()> {
    write_paragraphs(root, Paragraph::read_all(&root.read_text(STATUS)?))
}

/// Packages whose state is not `install ok installed`, with their state.
pub fn unfinished(root: &Root) -> io::Result<Vec<(String, String)>> {
    let paragraphs = Paragraph::read_all(&root.read_text(STATUS)?);
    let broken = paragraphs.iter().filter(|paragraph| paragraph.text("Status") != "install ok installed");
    Ok(broken.map(|p| (p.text("Package").to_owned(), p.text("Status").to_owned())).collect())
}

/// One line of a package's `triggers` that names an interest: the trigger, and how it is to be recorded.
fn interests(deb: &Deb) -> Vec<(String, String)> {
    let text = deb.text("triggers");
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .filter_map(|line| {
            let (directive, trigger) = line.trim().split_once(char::is_whitespace)?;
            let ending = match directive {
                "interest" | "interest-await" => "",
                "interest-noawait" => "/noawait",
                _ => return None,
            };
            Some((trigger.trim().to_owned(), format!("{}{ending}", deb.info_name())))
        })
        .collect()
}

/// `triggers/File` for paths, one file for each named trigger.
fn write_interests(root: &Root, unpacked: &[(&Deb, Contents)]) -> io::Result<()> {
    let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (trigger, who) in unpacked.iter().flat_map(|(deb, _)| interests(deb)) {
        if trigger.starts_with('/') {
            named.entry("File".into()).or_default().insert(format!("{trigger} {who}"));
        } else if !trigger.contains('/') && !trigger.starts_with('.') {
            named.entry(trigger).or_default().insert(who);
        }
    }
    for (name, mut lines) in named {
        let path = format!("{DATABASE}/triggers/{name}");
        lines.extend(root.read_text(&path)?.lines().map(str::to_owned));
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        root.write(&path, text.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Notes which paths that installed packages watch have new files: dpkg takes it from there when it next runs.
fn activate_triggers(root: &Root, unpacked: &[(&Deb, Contents)]) -> io::Result<()> {
    let watched = root.read_text(&format!("{DATABASE}/triggers/File"))?;
    let watched: BTreeSet<&str> = watched.lines().filter_map(|line| line.split(' ').next()).collect();
    if watched.is_empty() {
        return Ok(());
    }
    let paths = unpacked.iter().flat_map(|(_, contents)| &contents.list);
    let above = paths.flat_map(|path| {
        let parents = path.match_indices('/').skip(1).map(|(at, _)| &path[..at]);
        parents.chain([path.as_str()])
    });
    let activated: BTreeSet<&str> = above.filter(|path| watched.contains(path)).collect();
    let path = format!("{DATABASE}/triggers/Unincorp");
    let mut text = root.read_text(&path)?;
    activated.iter().for_each(|trigger| text.push_str(&format!("{trigger} -\n")));
    if text.is_empty() { Ok(()) } else { root.write(&path, text.as_bytes(), 0o644) }
}

/// Diversions and overrides of a tree.
pub fn rules(root: &Root, keep_conffiles: bool) -> io::Result<Rules> {
    let diversions = root.read_text(&format!("{DATABASE}/diversions"))?;
    let lines: Vec<&str> = diversions.lines().collect();
    let of = |chunk: &[&str]| match chunk {
        [from, to, owner] => Some(((*from).to_owned(), ((*to).to_owned(), (*owner).to_owned()))),
        _ => None,
    };
    Ok(Rules { diversions: lines.chunks(3).filter_map(of).collect(), overrides: overrides(root)?, keep_conffiles })
}

/// `user group mode path` lines; a name that the tree does not know leaves the package's owner in force.
fn overrides(root: &Root) -> io::Result<HashMap<String, (u32, u32, u32)>> {
    let text = root.read_text(&format!("{DATABASE}/statoverride"))?;
    let (users, groups) = (ids(&root.read_text("etc/passwd")?), ids(&root.read_text("etc/group")?));
    let id = |table: &HashMap<String, u32>, name: &str| match name.strip_prefix('#') {
        Some(number) => number.parse().ok(),
        None => table.get(name).copied(),
    };
    let read = |line: &str| {
        let mut words = line.splitn(4, ' ');
        let (user, group) = (id(&users, words.next()?)?, id(&groups, words.next()?)?);
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        Some((words.next()?.to_owned(), (user, group, mode)))
    };
    Ok(text.lines().filter_map(read).collect())
}

fn ids(table: &str) -> HashMap<String, u32> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    table.lines().filter_map(entry).collect()
}
