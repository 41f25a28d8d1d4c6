//! What Debian's own records say: whose every path is, what it was when it was shipped, and what somebody asked for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    time::Duration,
};

use super::{Package, SurveyError, text};
use crate::debian::{control::Paragraph, root::Root};

/// From a package's installation its scripts write for at most so long.
const SCRIPTS: Duration = Duration::from_secs(300);

/// What dpkg, apt and ucf know.
#[derive(Debug, Default)]
pub(super) struct Database {
    installed: Vec<Paragraph>,
    automatic: BTreeSet<String>,
    /// Path → package.
    owners: HashMap<String, String>,
    /// Path → MD5 as shipped; also what ucf wrote.
    hashes: HashMap<String, String>,
    conffiles: BTreeSet<String>,
    /// When packages were installed, seconds since 1970.
    installations: BTreeSet<i64>,
    /// What the packages' scripts say, for names that are looked for in it.
    scripts: String,
    /// Top directories that lead below `/usr`.
    merged: Vec<String>,
    /// Path → where it is for every package but the one that is named (`dpkg-divert(1)`).
    diversions: HashMap<String, (String, String)>,
    /// Patterns of paths that dpkg was told not to unpack, later ones first.
    left_out: Vec<(bool, String)>,
}

impl Database {
    pub(super) fn read(root: &Root) -> Result<Self, SurveyError> {
        let status = text(root, "/var/lib/dpkg/status")?;
        if status.is_empty() {
            return Err(SurveyError::NoDpkg);
        }
        let is_installed = |paragraph: &Paragraph| paragraph.text("Status").ends_with(" installed");
        let mut database = Self {
            installed: Paragraph::read_all(&status).into_iter().filter(is_installed).collect(),
            automatic: automatic(&text(root, "/var/lib/apt/extended_states")?),
            merged: merged(root),
            left_out: left_out(root)?,
            ..Self::default()
        };
        database.read_diversions(&text(root, "/var/lib/dpkg/diversions")?);
        database.read_info(root)?;
        database.read_conffiles();
        database.read_ucf(&text(root, "/var/lib/ucf/hashfile")?);
        Ok(database)
    }

    fn read_info(&mut self, root: &Root) -> Result<(), SurveyError> {
        const INFO: &str = "/var/lib/dpkg/info";
        let failed = |source| SurveyError::Read { path: INFO.to_owned(), source };
        let names: Vec<_> =
            root.list(INFO.trim_start_matches('/')).map_err(failed)?.into_iter().map(|(name, _)| name).collect();
        for name in &names {
            let path = format!("{INFO}/{name}");
            let Some((of, kind)) = name.rsplit_once('.') else { continue };
            let package = of.split(':').next().unwrap_or(of);
            match kind {
                "list" => {
                    let stat = root.stat(path.trim_start_matches('/')).map_err(failed)?;
                    self.installations.extend(stat.map(|stat| stat.st_mtime));
                    self.own(package, &text(root, &path)?);
                }
                "md5sums" => self.remember_hashes(package, &text(root, &path)?),
                "postinst" | "preinst" => self.scripts.push_str(&text(root, &path)?),
                _ => {}
            }
        }
        Ok(())
    }

    fn own(&mut self, package: &str, list: &str) {
        for path in list.lines() {
            let path = self.place(package, path);
            self.owners.entry(path).or_insert_with(|| package.to_owned());
        }
    }

    /// `HASH  path/without/slash`.
    fn remember_hashes(&mut self, package: &str, sums: &str) {
        for (hash, path) in sums.lines().filter_map(|line| line.split_once("  ")) {
            let path = self.place(package, &format!("/{path}"));
            self.hashes.insert(path, hash.to_owned());
        }
    }

    /// Where a package's file is.
    fn place(&self, package: &str, path: &str) -> String {
        let path = self.canonical(path);
        match self.diversions.get(&path) {
            Some((to, by)) if by != package => to.clone(),
            _ => path,
        }
    }

    /// ` /etc/file HASH [obsolete]` of each package's paragraph.
    fn read_conffiles(&mut self) {
        let lines: Vec<String> =
            self.installed.iter().flat_map(|of| of.text("Conffiles").lines().map(str::to_owned)).collect();
        for line in lines {
            let mut words = line.split_whitespace();
            if let (Some(path), Some(hash), None) = (words.next(), words.next(), words.next()) {
                let path = self.canonical(path);
                self.hashes.insert(path.clone(), hash.to_owned());
                self.conffiles.insert(path);
            }
        }
    }

    /// `HASH  /etc/file`: what `ucf` wrote last of what it manages. It belongs to a package that no list names.
    fn read_ucf(&mut self, hashes: &str) {
        for (hash, path) in hashes.lines().filter_map(|line| line.split_once("  ")) {
            let path = self.canonical(path.trim());
            self.hashes.insert(path.clone(), hash.to_owned());
            self.owners.entry(path.clone()).or_insert_with(|| "ucf".to_owned());
            self.conffiles.insert(path);
        }
    }

    /// Three lines each: from, to, by whom (`:` is by hand).
    fn read_diversions(&mut self, text: &str) {
        let lines: Vec<&str> = text.lines().collect();
        for three in lines.chunks_exact(3) {
            let [from, to] = [three[0], three[1]].map(|path| self.canonical(path));
            self.diversions.insert(from, (to, three[2].to_owned()));
        }
    }

    /// The path as the tree has it: `/bin/sh` is `/usr/bin/sh` where `/bin` is a link.
    pub(super) fn canonical(&self, path: &str) -> String {
        let rest = path.trim_start_matches('/');
        let first = rest.split('/').next().unwrap_or_default();
        let moved = rest.len() > first.len() && self.merged.iter().any(|merged| merged == first);
        if moved { format!("/usr/{rest}") } else { format!("/{rest}") }
    }

    pub(super) fn owner(&self, path: &str) -> Option<&str> {
        self.owners.get(path).map(String::as_str)
    }

    pub(super) fn is_conffile(&self, path: &str) -> bool {
        self.conffiles.contains(path)
    }

    /// Every path whose content is known, with its MD5 in hexadecimal digits.
    pub(super) fn hashes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.hashes.iter().map(|(path, hash)| (path.as_str(), hash.as_str()))
    }

    /// Whether dpkg was told not to unpack it (`path-exclude`, `dpkg(1)`).
    pub(super) fn is_left_out(&self, path: &str) -> bool {
        let matching = self.left_out.iter().find(|(_, pattern)| matches(pattern.as_bytes(), path.as_bytes()));
        matching.is_some_and(|(excluded, _)| *excluded)
    }

    /// Whether a package's scripts may have made something at this time, seconds since 1970.
    pub(super) fn is_of_an_installation(&self, time: i64) -> bool {
        let window = SCRIPTS.as_secs() as i64;
        self.installations.range(time - window..=time + window).next().is_some()
    }

    /// Whether some package's script names this word.
    pub(super) fn scripts_name(&self, word: &str) -> bool {
        let is_part = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        self.scripts.match_indices(word).any(|(at, _)| {
            let before = self.scripts[..at].chars().next_back();
            let after = self.scripts[at + word.len()..].chars().next();
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        })
    }

    /// What somebody asked for: neither installed as a dependency nor part of every Debian.
    pub(super) fn by_hand(&self) -> Vec<Package> {
        let everywhere = self.of_every_debian();
        let asked = self.installed.iter().filter(|package| {
            let name = package.text("Package");
            !self.automatic.contains(name) && !everywhere.contains(name)
        });
        let packages = asked.map(|package| Package {
            name: package.text("Package").to_owned(),
            version: package.text("Version").to_owned(),
            maintainer: package.text("Maintainer").to_owned(),
        });
        let by_name: BTreeMap<String, Package> = packages.map(|package| (package.name.clone(), package)).collect();
        by_name.into_values().collect()
    }

    /// Essential, required and important packages, `apt`, and what they depend on.
    pub(super) fn of_every_debian(&self) -> BTreeSet<&str> {
        let is_everywhere = |package: &&Paragraph| {
            package.text("Essential") == "yes"
                || matches!(package.text("Priority"), "required" | "important")
                || package.text("Package") == "apt"
        };
        let by_name: HashMap<&str, &Paragraph> = self.installed.iter().map(|of| (of.text("Package"), of)).collect();
        let mut found = BTreeSet::new();
        let mut open: Vec<&Paragraph> = self.installed.iter().filter(is_everywhere).collect();
        while let Some(package) = open.pop() {
            if found.insert(package.text("Package")) {
                let needed = ["Pre-Depends", "Depends"].into_iter().flat_map(|field| names(package.text(field)));
                open.extend(needed.filter_map(|name| by_name.get(name).copied()));
            }
        }
        found
    }
}

/// The names in a relation, alternatives included: `a (>= 1), b | c:any`.
fn names(relation: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| c.is_whitespace() || c == '(' || c == ':' || c == '[';
    relation.split([',', '|']).filter_map(move |part| part.trim().split(ends).next())
}

/// The packages that came as dependencies (`apt-mark showauto`).
fn automatic(states: &str) -> BTreeSet<String> {
    let all = Paragraph::read_all(states);
    let automatic = all.iter().filter(|state| state.text("Auto-Installed") == "1");
    automatic.map(|state| state.text("Package").to_owned()).collect()
}

fn merged(root: &Root) -> Vec<String> {
    let is_link = |name: &&str| {
        let stat = root.stat(name).ok().flatten();
        stat.is_some_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Symlink)
    };
    ["bin", "sbin", "lib", "lib32", "lib64", "libx32"].into_iter().filter(is_link).map(str::to_owned).collect()
}

fn left_out(root: &Root) -> Result<Vec<(bool, String)>, SurveyError> {
    const DIRECTORY: &str = "/etc/dpkg/dpkg.cfg.d";
    let failed = |source: io::Error| SurveyError::Read { path: DIRECTORY.to_owned(), source };
    let mut files = vec!["/etc/dpkg/dpkg.cfg".to_owned()];
    let names = root.list(DIRECTORY.trim_start_matches('/')).map_err(failed)?;
    files.extend(names.into_iter().map(|(name, _)| format!("{DIRECTORY}/{name}")));
    let mut rules = Vec::new();
    for file in files {
        for line in text(root, &file)?.lines() {
            let rule = line.trim().trim_start_matches("--").split_once('=');
            match rule.map(|(key, pattern)| (key.trim(), pattern.trim().to_owned())) {
                Some(("path-exclude", pattern)) => rules.push((true, pattern)),
                Some(("path-include", pattern)) => rules.push((false, pattern)),
                _ => {}
            }
        }
    }
    rules.reverse();
    Ok(rules)
}

/// Shell patterns in which `*` also matches `/`, as dpkg's do.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let (mut at, mut of, mut star) = (0, 0, None);
    while at < path.len() {
        match pattern.get(of) {
            Some(b'*') => {
                star = Some((of, at));
                of += 1;
            }
            Some(&byte) if byte == b'?' || byte == path[at] => (at, of) = (at + 1, of + 1),
            _ => match star {
                Some((back, from)) => {
                    (at, of) = (from + 1, back + 1);
                    star = Some((back, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[of..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn unit_patterns_of_dpkg_match_over_slashes() {
        let cases = [
            ("/usr/share/doc/*", "/usr/share/doc/a/b", true),
            ("/usr/share/doc/*/copyright", "/usr/share/doc/a/copyright", true),
            ("/usr/share/doc/*/copyright", "/usr/share/doc/a/changelog", false),
            ("/usr/share/man/*", "/usr/share/doc/a", false),
            ("*a*b", "xxaxxb", true),
            ("?", "", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), path.as_bytes()), expected, "{pattern} {path}");
        }
    }
}
