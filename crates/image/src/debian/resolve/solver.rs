//! The search. Packages are chosen one by one; a dependency that leaves a choice waits until every dependency without
//! one has been followed, so that choices prefer what is needed anyway.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, VecDeque},
};

use kiln_model::lock::LockedPackage;

use super::{Installed, ResolveError, Source, locked, near};
use crate::debian::{
    index::{MultiArch, Package},
    relation::{self, Relation},
    version,
};

/// What relations are checked against: a chosen package, new or installed.
#[derive(Debug, Clone, Copy)]
struct Facts<'a> {
    name: &'a str,
    version: &'a str,
    provides: &'a str,
    conflicts: &'a str,
    breaks: &'a str,
    multi_arch: MultiArch,
    new: Option<(&'a str, Package<'a>)>,
}

impl<'a> Facts<'a> {
    fn of_new(archive: &'a str, package: Package<'a>) -> Self {
        Self {
            name: package.name(),
            version: package.version(),
            provides: package.provides(),
            conflicts: package.conflicts(),
            breaks: package.breaks(),
            multi_arch: package.multi_arch(),
            new: Some((archive, package)),
        }
    }

    fn of_installed(package: &'a Installed) -> Self {
        Self {
            name: &package.name,
            version: &package.version,
            provides: &package.provides,
            conflicts: &package.conflicts,
            breaks: &package.breaks,
            multi_arch: package.multi_arch,
            new: None,
        }
    }

    fn meets(&self, relation: &Relation<'_>) -> bool {
        self.fits_qualifier(relation) && (self.is_named(relation) || self.provides(relation))
    }

    fn is_named(&self, relation: &Relation<'_>) -> bool {
        self.name == relation.name && relation.admits(self.version)
    }

    /// A versioned relation is met by a versioned `Provides` only (Policy 7.5).
    fn provides(&self, relation: &Relation<'_>) -> bool {
        relation::all(self.provides).filter(|provided| provided.name == relation.name).any(|provided| {
            match (relation.version, provided.version) {
                (None, _) => true,
                (Some(_), Some((_, version))) => relation.admits(version),
                (Some(_), None) => false,
            }
        })
    }

    /// `:any` asks for a package that says it serves every architecture's programs; others mean this architecture.
    fn fits_qualifier(&self, relation: &Relation<'_>) -> bool {
        match relation.qualifier {
            None | Some("native" | "amd64" | "all") => true,
            Some("any") => self.multi_arch == MultiArch::Allowed,
            Some(_) => false,
        }
    }

    fn excludes(&self) -> impl Iterator<Item = Relation<'a>> + use<'a> {
        relation::all(self.conflicts).chain(relation::all(self.breaks))
    }

    fn excluded_by(&self, other: &Facts<'a>) -> Option<Relation<'a>> {
        let foreign = |relation: &Relation<'_>| !matches!(relation.qualifier, None | Some("any" | "native" | "amd64"));
        other.excludes().find(|relation| !foreign(relation) && (self.is_named(relation) || self.provides(relation)))
    }
}

/// A dependency that leaves a choice.
struct Open<'a> {
    owner: &'a str,
    group: &'a str,
}

pub struct Solver<'a> {
    sources: &'a [Source<'a>],
    pins: BTreeMap<&'a str, &'a str>,
    has_base: bool,
    chosen: BTreeMap<&'a str, Facts<'a>>,
    /// Name, own or provided → chosen packages.
    by_name: HashMap<&'a str, Vec<&'a str>>,
    /// Name → chosen packages that exclude some version of it.
    excluded: HashMap<&'a str, Vec<&'a str>>,
    because: HashMap<&'a str, &'a str>,
    queue: VecDeque<&'a str>,
    open: VecDeque<Open<'a>>,
}

impl<'a> Solver<'a> {
    pub fn new(sources: &'a [Source<'a>], installed: &'a [Installed], pins: BTreeMap<&'a str, &'a str>) -> Self {
        let mut solver = Self {
            sources,
            pins,
            has_base: !installed.is_empty(),
            chosen: BTreeMap::new(),
            by_name: HashMap::new(),
            excluded: HashMap::new(),
            because: HashMap::new(),
            queue: VecDeque::new(),
            open: VecDeque::new(),
        };
        installed.iter().for_each(|package| solver.record(Facts::of_installed(package)));
        solver
    }

    pub fn solve(mut self, wanted: &[&'a str]) -> Result<Vec<LockedPackage>, ResolveError> {
        for name in wanted {
            self.want(name)?;
        }
        if !self.has_base {
            self.essential().into_iter().for_each(|facts| self.choose(facts, None));
        }
        loop {
            if let Some(name) = self.queue.pop_front() {
                self.follow(name)?;
            } else if let Some(open) = self.open.pop_front() {
                self.decide(&open)?;
            } else {
                break;
            }
        }
        self.check_exclusions()?;
        let new = self.chosen.values().filter_map(|facts| facts.new);
        Ok(new.map(|(archive, package)| locked(archive, package)).collect())
    }

    /// A package that the recipe names.
    fn want(&mut self, name: &'a str) -> Result<(), ResolveError> {
        if let Some(facts) = self.chosen.get(name) {
            return match self.pins.get(name) {
                Some(pin) if *pin != facts.version => Err(self.other_version(facts, pin, None)),
                _ => Ok(()),
            };
        }
        if let Some(facts) = self.candidate(name) {
            self.choose(facts, None);
            return Ok(());
        }
        if let Some(version) = self.pins.get(name)
            && let available = self.versions(name)
            && !available.is_empty()
        {
            return Err(ResolveError::NoSuchVersion {
                name: name.to_owned(),
                version: (*version).to_owned(),
                available,
            });
        }
        let relation = Relation { name, qualifier: None, version: None };
        match self.providers(&relation).as_slice() {
            [] => Err(self.no_such(name, None)),
            [only] => {
                self.choose(*only, None);
                Ok(())
            }
            several => {
                let providers = several.iter().map(|facts| facts.name.to_owned()).collect();
                Err(ResolveError::Ambiguous { name: name.to_owned(), providers })
            }
        }
    }

    /// The version of a package that would be installed.
    fn candidate(&self, name: &'a str) -> Option<Facts<'a>> {
        let pin = self.pins.get(name).copied();
        let versions = self.sources.iter().flat_map(|source| {
            let mut of_source = source.index.named(name).filter(move |p| pin.is_none_or(|pin| p.version() == pin));
            of_source.next().map(|package| (source.archive, package))
        });
        let newest =
            versions.reduce(
                |best, next| {
                    if version::compare(next.1.version(), best.1.version()).is_gt() { next } else { best }
                },
            );
        newest.map(|(archive, package)| Facts::of_new(archive, package))
    }

    fn versions(&self, name: &str) -> Vec<String> {
        let all = self.sources.iter().flat_map(|source| source.index.named(name).map(|p| p.version().to_owned()));
        let mut all: Vec<String> = all.collect();
        all.sort_by(|a, b| version::compare(b, a));
        all.dedup();
        all
    }

    fn essential(&self) -> Vec<Facts<'a>> {
        let packages = self.sources.iter().flat_map(|source| source.index.packages());
        let mut names: Vec<&'a str> = packages.filter(Package::essential).map(|package| package.name()).collect();
        names.sort_unstable();
        names.dedup();
        let candidates = names.into_iter().filter_map(|name| self.candidate(name));
        candidates.filter(|facts| facts.new.is_some_and(|(_, package)| package.essential())).collect()
    }

    fn record(&mut self, facts: Facts<'a>) {
        let names = [facts.name].into_iter().chain(relation::all(facts.provides).map(|provided| provided.name));
        for name in names {
            self.by_name.entry(name).or_default().push(facts.name);
        }
        for relation in facts.excludes() {
            self.excluded.entry(relation.name).or_default().push(facts.name);
        }
        self.chosen.insert(facts.name, facts);
    }

    fn choose(&mut self, facts: Facts<'a>, because: Option<&'a str>) {
        if self.chosen.contains_key(facts.name) {
            return;
        }
        self.because.extend(because.map(|owner| (facts.name, owner)));
        self.record(facts);
        self.queue.push_back(facts.name);
    }

    /// Follows the dependencies of a chosen package that leave no choice, and remembers the others.
    fn follow(&mut self, owner: &'a str) -> Result<(), ResolveError> {
        let Some((_, package)) = self.chosen.get(owner).and_then(|facts| facts.new) else { return Ok(()) };
        for group in relation::groups(package.pre_depends()).chain(relation::groups(package.depends())) {
            let open = Open { owner, group };
            match self.only_choice(group) {
                Some(_) if self.is_met(group) => {}
                Some(facts) => self.choose(facts, Some(owner)),
                None => self.open.push_back(open),
            }
        }
        Ok(())
    }

    /// The package behind a group of one alternative that nothing else provides.
    fn only_choice(&self, group: &'a str) -> Option<Facts<'a>> {
        let mut alternatives = relation::alternatives(group);
        let (relation, None) = (alternatives.next()?, alternatives.next()) else { return None };
        let mut choices = self.choices(&relation).into_iter();
        choices.next().filter(|_| choices.next().is_none())
    }

    fn decide(&mut self, open: &Open<'a>) -> Result<(), ResolveError> {
        if self.is_met(open.group) {
            return Ok(());
        }
        for relation in relation::alternatives(open.group) {
            let choices = self.choices(&relation);
            if let Some(facts) = choices.into_iter().find(|facts| self.exclusion(facts).is_none()) {
                self.choose(facts, Some(open.owner));
                return Ok(());
            }
        }
        Err(self.unmet(open))
    }

    fn is_met(&self, group: &str) -> bool {
        relation::alternatives(group).any(|relation| {
            let chosen = self.by_name.get(relation.name).into_iter().flatten();
            chosen.filter_map(|name| self.chosen.get(name)).any(|facts| facts.meets(&relation))
        })
    }

    /// What could be installed to meet a relation, best first: the package of that name, then its providers.
    fn choices(&self, relation: &Relation<'a>) -> Vec<Facts<'a>> {
        let real = (!self.chosen.contains_key(relation.name)).then(|| self.candidate(relation.name)).flatten();
        let mut choices: Vec<Facts<'a>> = real.into_iter().filter(|facts| facts.meets(relation)).collect();
        choices.extend(self.providers(relation).into_iter().filter(|facts| facts.name != relation.name));
        choices
    }

    fn providers(&self, relation: &Relation<'a>) -> Vec<Facts<'a>> {
        let providers = self.sources.iter().flat_map(|source| source.index.providers(relation.name));
        let mut names: Vec<&'a str> = providers.map(|package| package.name()).collect();
        names.sort_unstable();
        names.dedup();
        let candidates = names.into_iter().filter(|name| !self.chosen.contains_key(name));
        let mut found: Vec<Facts<'a>> =
            candidates.filter_map(|name| self.candidate(name)).filter(|facts| facts.meets(relation)).collect();
        found.sort_by_key(|facts| {
            facts.new.map(|(_, package)| (Reverse(package.essential()), package.priority(), package.name()))
        });
        found
    }

    /// The chosen package and the relation that stand against choosing this one.
    fn exclusion(&self, facts: &Facts<'a>) -> Option<(&'a str, Relation<'a>)> {
        let own = facts.excludes().flat_map(|relation| self.by_name.get(relation.name).into_iter().flatten());
        let by_own = own.filter_map(|name| self.chosen.get(name)).filter(|other| other.name != facts.name);
        let mut found = by_own.filter_map(|other| Some((other.name, other.excluded_by(facts)?)));
        let names = [facts.name].into_iter().chain(relation::all(facts.provides).map(|provided| provided.name));
        let owners = names.flat_map(|name| self.excluded.get(name).into_iter().flatten());
        let by_other = owners.filter_map(|name| self.chosen.get(name)).filter(|other| other.name != facts.name);
        let mut against = by_other.filter_map(|other| Some((other.name, facts.excluded_by(other)?)));
        found.next().or_else(|| against.next())
    }

    fn check_exclusions(&self) -> Result<(), ResolveError> {
        for facts in self.chosen.values() {
            for relation in facts.excludes() {
                let others = self.by_name.get(relation.name).into_iter().flatten().filter(|name| **name != facts.name);
                let mut others = others.filter_map(|name| self.chosen.get(name));
                let matter = |other: &&Facts<'a>| facts.new.is_some() || other.new.is_some();
                if let Some(other) = others.find(|other| matter(other) && other.excluded_by(facts).is_some()) {
                    return Err(ResolveError::Conflict {
                        package: facts.name.to_owned(),
                        needed_by: self.chain(facts.name),
                        other: other.name.to_owned(),
                        other_needed_by: self.chain(other.name),
                        relation: relation.to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Who needs this package, from the recipe's package on; empty for one that the recipe names.
    fn chain(&self, name: &str) -> Vec<String> {
        let mut owners: Vec<String> = Vec::new();
        let mut at = name;
        while let Some(owner) = self.because.get(at) {
            owners.push((*owner).to_owned());
            at = owner;
        }
        owners.reverse();
        owners
    }

    fn chain_with(&self, owner: &str) -> Vec<String> {
        let mut chain = self.chain(owner);
        chain.push(owner.to_owned());
        chain
    }

    fn no_such(&self, name: &str, owner: Option<&str>) -> ResolveError {
        let names = self.sources.iter().flat_map(|source| source.index.packages()).map(|package| package.name());
        let near = near::near(name, names);
        let needed_by = owner.map(|owner| self.chain_with(owner)).unwrap_or_default();
        ResolveError::NoSuchPackage { name: name.to_owned(), needed_by, near }
    }

    fn other_version(&self, facts: &Facts<'_>, wanted: &str, owner: Option<&str>) -> ResolveError {
        ResolveError::OtherVersionInstalled {
            name: facts.name.to_owned(),
            installed: facts.version.to_owned(),
            wanted: wanted.to_owned(),
            needed_by: owner.map(|owner| self.chain_with(owner)).unwrap_or_default(),
        }
    }

    fn unmet(&self, open: &Open<'a>) -> ResolveError {
        let alternatives: Vec<Relation<'a>> = relation::alternatives(open.group).collect();
        if let [relation] = alternatives.as_slice() {
            let unknown = self.versions(relation.name).is_empty() && !self.by_name.contains_key(relation.name);
            if unknown && self.providers(&Relation { version: None, qualifier: None, ..*relation }).is_empty() {
                return self.no_such(relation.name, Some(open.owner));
            }
            if let Some(facts) = self.chosen.get(relation.name).filter(|facts| facts.new.is_none()) {
                return self.other_version(facts, &relation.to_string(), Some(open.owner));
            }
        }
        let reasons: Vec<String> = alternatives.iter().map(|relation| self.obstacle(relation)).collect();
        let needed_by = self.chain_with(open.owner);
        ResolveError::Unmet { relation: open.group.to_owned(), needed_by, reason: reasons.join("; ") }
    }

    /// Why one alternative cannot be had.
    fn obstacle(&self, relation: &Relation<'a>) -> String {
        if let Some(facts) = self.chosen.get(relation.name) {
            return format!("{} is chosen in version {}", facts.name, facts.version);
        }
        for facts in self.choices(relation) {
            if let Some((other, exclusion)) = self.exclusion(&facts) {
                return format!("{} and {other} exclude each other (`{exclusion}`)", facts.name);
            }
        }
        match self.versions(relation.name).as_slice() {
            [] => format!("there is no package {}", relation.name),
            versions => format!("of {} there is {}", relation.name, versions.join(", ")),
        }
    }
}
