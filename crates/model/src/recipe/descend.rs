//! Which recipes descend from an image, and in which order they are to be baked.

use std::collections::BTreeMap;

use super::Base;
use crate::{fleet::Selector, id::ImageName};

/// What a recipe is called and what it starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descent {
    /// Its name.
    pub name: ImageName,
    /// The image that it starts from; none if that is a Debian suite or an image of somebody else.
    pub base: Option<ImageName>,
    /// Whether its base is one image for ever: a newer one does not reach it.
    pub pinned: bool,
}

impl Descent {
    /// Of a recipe.
    pub fn of(name: &ImageName, base: &Base) -> Self {
        let image = match base {
            Base::Image(image) => Some(image),
            // The stage that the image itself is made of counts; others only lend files.
            Base::Containerfile(base) => base.plan.kiln_base(),
            Base::Debian(_) | Base::Oci(_) => None,
        };
        let pinned = image.is_some_and(|image| matches!(image.selector, Selector::Digest(_)));
        Self { name: name.clone(), base: image.map(|image| image.name.clone()), pinned }
    }
}

/// Why there is no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoOrder {
    /// Two recipes make images of one name.
    #[error("two recipes are called `{0}`")]
    Twice(ImageName),
    /// A recipe starts from itself, in the end.
    #[error("the recipe `{0}` starts, in the end, from itself")]
    Round(ImageName),
}

/// The recipes that descend from `root`, itself included if it is one of them, bases first: positions in `recipes`.
pub fn descendants(root: &ImageName, recipes: &[Descent]) -> Result<Vec<usize>, NoOrder> {
    let mut places = BTreeMap::new();
    for (place, recipe) in recipes.iter().enumerate() {
        if places.insert(&recipe.name, place).is_some() {
            return Err(NoOrder::Twice(recipe.name.clone()));
        }
    }
    for recipe in recipes {
        let next = |name: &ImageName| places.get(name).and_then(|place| recipes[*place].base.clone());
        let mut above = std::iter::successors(next(&recipe.name), next).take(recipes.len());
        if above.any(|base| base == recipe.name) {
            return Err(NoOrder::Round(recipe.name.clone()));
        }
    }
    let mut order: Vec<usize> = places.get(root).copied().into_iter().collect();
    let mut reached = vec![root.clone()];
    let mut next = 0;
    while let Some(base) = reached.get(next).cloned() {
        let children = recipes.iter().enumerate().filter(|(_, recipe)| recipe.base.as_ref() == Some(&base));
        for (place, recipe) in children {
            order.push(place);
            reached.push(recipe.name.clone());
        }
        next += 1;
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(name: &str, base: &str) -> Descent {
        let base = (!base.is_empty()).then(|| base.parse().unwrap());
        Descent { name: name.parse().unwrap(), base, pinned: false }
    }

    fn order(root: &str, recipes: &[Descent]) -> Result<Vec<String>, NoOrder> {
        let found = descendants(&root.parse().unwrap(), recipes)?;
        Ok(found.into_iter().map(|place| recipes[place].name.to_string()).collect())
    }

    #[test]
    fn unit_descendants_come_after_their_bases() {
        let recipes = [
            recipe("shop", "web"),
            recipe("till", "base"),
            recipe("web", "base"),
            recipe("other", "elsewhere"),
            recipe("base", ""),
        ];
        assert_eq!(order("base", &recipes).unwrap(), ["base", "till", "web", "shop"]);
        assert_eq!(order("web", &recipes).unwrap(), ["web", "shop"]);
        assert_eq!(order("elsewhere", &recipes).unwrap(), ["other"], "the base itself need not be a recipe here");
        assert!(order("nothing", &recipes).unwrap().is_empty());
        let round = [recipe("a", "b"), recipe("b", "a")];
        assert_eq!(order("a", &round), Err(NoOrder::Round("a".parse().unwrap())));
        let twice = [recipe("a", ""), recipe("a", "")];
        assert_eq!(order("a", &twice), Err(NoOrder::Twice("a".parse().unwrap())));
    }
}
