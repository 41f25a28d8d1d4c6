//! In which order packages are unpacked and configured.
//!
//! dpkg unpacks and configures package by package; Kiln does as many at once as the packages' promises allow. A `preinst`
//! script runs before its package is unpacked and may count on its `Pre-Depends` being configured; everything else only
//! needs its `Depends` configured before it is configured itself, which dpkg orders. So a package goes into the first
//! phase in which its dependencies are configured with it or before it, and its `Pre-Depends` strictly before it if it
//! has a `preinst`. In an empty tree the essential packages and what they need come first, unpacked before any script
//! can run at all. Most sets need one or two phases.

use std::collections::{BTreeSet, HashMap};

use super::{deb::Deb, relation};

/// Packages that need each other configured before they can be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the packages {} need each other before they can be unpacked (Pre-Depends)", .0.join(", "))]
pub struct Cycle(pub Vec<String>);

/// The phases, each in unpack order, as indexes into `debs`. `fresh`: there is nothing in the tree yet.
pub fn plan(debs: &[Deb], fresh: bool) -> Result<Vec<Vec<usize>>, Cycle> {
    let graph = Graph::new(debs);
    let base = if fresh { graph.essential_closure(debs) } else { BTreeSet::new() };
    let levels = graph.levels(debs, &base, fresh)?;
    let mut phases = vec![Vec::new(); levels.iter().max().map_or(0, |last| last + 1)];
    for at in unpack_order(debs) {
        phases[levels[at]].push(at);
    }
    phases.retain(|phase| !phase.is_empty());
    Ok(phases)
}

/// base-files makes the common directories with their modes, base-passwd the users; the others by name.
fn unpack_order(debs: &[Deb]) -> Vec<usize> {
    let rank = |deb: &Deb| match deb.name() {
        "base-files" => 0,
        "base-passwd" => 1,
        _ => 2,
    };
    let mut order: Vec<usize> = (0..debs.len()).collect();
    order.sort_by_key(|at| (rank(&debs[*at]), debs[*at].name().to_owned()));
    order
}

/// Who needs whom, within the set.
struct Graph {
    depends: Vec<Vec<usize>>,
    pre_depends: Vec<Vec<usize>>,
}

impl Graph {
    fn new(debs: &[Deb]) -> Self {
        let mut names: HashMap<&str, usize> = HashMap::new();
        for (at, deb) in debs.iter().enumerate() {
            relation::all(deb.control.text("Provides")).for_each(|provided| {
                names.entry(provided.name).or_insert(at);
            });
        }
        names.extend(debs.iter().enumerate().map(|(at, deb)| (deb.name(), at)));
        let needs = |field: &str| {
            let of = |deb: &Deb| {
                let groups = relation::groups(deb.control.text(field));
                groups.filter_map(|g| relation::alternatives(g).find_map(|r| names.get(r.name).copied())).collect()
            };
            debs.iter().map(of).collect()
        };
        Self { depends: needs("Depends"), pre_depends: needs("Pre-Depends") }
    }

    fn essential_closure(&self, debs: &[Deb]) -> BTreeSet<usize> {
        let mut closure = BTreeSet::new();
        let mut queue: Vec<usize> =
            (0..debs.len()).filter(|at| debs[*at].control.get("Essential") == Some("yes")).collect();
        while let Some(at) = queue.pop() {
            if closure.insert(at) {
                queue.extend(self.depends[at].iter().chain(&self.pre_depends[at]));
            }
        }
        closure
    }

    fn levels(&self, debs: &[Deb], base: &BTreeSet<usize>, fresh: bool) -> Result<Vec<usize>, Cycle> {
        let has_preinst = |at: usize| debs[at].files.contains_key("preinst") && !base.contains(&at);
        let mut levels = vec![0; debs.len()];
        loop {
            let mut changed = Vec::new();
            for at in (0..debs.len()).filter(|at| !base.contains(at)) {
                let before = usize::from(has_preinst(at));
                let depends = self.depends[at].iter().map(|need| levels[*need]);
                let pre_depends =
                    self.pre_depends[at].iter().filter(|need| **need != at).map(|need| levels[*need] + before);
                let least = if fresh { before } else { 0 };
                let level = depends.chain(pre_depends).chain([least]).max().unwrap_or(0);
                if level > levels[at] {
                    levels[at] = level;
                    changed.push(at);
                }
            }
            if changed.is_empty() {
                return Ok(levels);
            }
            if changed.iter().any(|at| levels[*at] > debs.len()) {
                return Err(Cycle(changed.iter().map(|at| debs[*at].name().to_owned()).collect()));
            }
        }
    }
}
