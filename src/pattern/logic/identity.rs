//! Patterns as values: compared, hashed and cloned behind `dyn Pattern`, so that a plan can be kept by its pattern.

use crate::pattern::{And, Extent, Not, Or, Pattern};
use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Which pattern it is: what [`Pattern::identity`] returns, and what `==` and `Hash` of `dyn Pattern` ask.
///
/// Two patterns are the same where they have the same type and equal parameters. References, boxes and `Arc`s are the
/// pattern that they hold. [`And`], [`Or`] and [`Not`] are compared by structure: their parts one by one and in their
/// order, not by the set of pairs that comes out. An `AnyPattern` is the pattern that it names.
///
/// ```
/// use wgpu_attention::pattern::{And, Causal, Identity, Pattern, Site, Window};
/// // A pattern of your own derives `Clone`, `PartialEq`, `Eq` and `Hash`, and says that it is itself.
/// #[derive(Debug, Clone, PartialEq, Eq, Hash)]
/// struct Every {
///     step: usize,
/// }
///
/// impl Pattern for Every {
///     fn keep(&self, _: &Site, _: usize, j: usize) -> bool {
///         j.is_multiple_of(self.step)
///     }
///
///     fn identity(&self) -> Identity<'_> {
///         Identity::of(self)
///     }
/// }
///
/// let (one, other): (Box<dyn Pattern>, &dyn Pattern) = (Box::new(Every { step: 3 }), &Every { step: 3 });
/// assert!(*one == *other);
/// assert!(*other != *(&Every { step: 4 } as &dyn Pattern));
/// let window = Window { before: 7, after: 0 };
/// assert!(And(&Causal, &window).identity() == And(Causal, Box::new(window)).identity());
/// // A plan cache: patterns are keys.
/// let plans = std::collections::HashMap::from([(one.clone(), "plan")]);
/// assert_eq!(plans.get(other), Some(&"plan"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity<'a>(Kind<'a>);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Kind<'a> {
    Own(Own<'a>),
    And(Box<[Identity<'a>; 2]>),
    Or(Box<[Identity<'a>; 2]>),
    Not(Box<Identity<'a>>),
}

/// A pattern that is no combination.
#[derive(Clone, Copy)]
struct Own<'a>(&'a dyn Value);

/// What is asked of a pattern that is no combination.
trait Value: Any {
    fn same(&self, other: &dyn Any) -> bool;
    fn hash_into(&self, state: &mut dyn Hasher);
    fn boxed(&self) -> Box<dyn Pattern>;
    fn as_pattern(&self) -> &dyn Pattern;
}

impl<T: Pattern + Clone + Eq + Hash + 'static> Value for T {
    fn same(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>() == Some(self)
    }

    fn hash_into(&self, mut state: &mut dyn Hasher) {
        self.type_id().hash(&mut state);
        self.hash(&mut state);
    }

    fn boxed(&self) -> Box<dyn Pattern> {
        Box::new(self.clone())
    }

    fn as_pattern(&self) -> &dyn Pattern {
        self
    }
}

impl<'a> Identity<'a> {
    /// A pattern of its own type: it is compared by `Eq`, hashed by `Hash` and cloned by `Clone`.
    ///
    /// Parameters that have none of them (closures, floats) need a rule of their own: as
    /// [`Predicate`](crate::pattern::Predicate) compares the `Arc` that holds its closure, or by the bits of a float.
    pub fn of<T: Pattern + Clone + Eq + Hash + 'static>(pattern: &'a T) -> Self {
        Self(Kind::Own(Own(pattern)))
    }

    /// Pairs that both keep: [`And`].
    pub fn both(a: Self, b: Self) -> Self {
        Self(Kind::And(Box::new([a, b])))
    }

    /// Pairs that either keeps: [`Or`].
    pub fn either(a: Self, b: Self) -> Self {
        Self(Kind::Or(Box::new([a, b])))
    }

    /// Pairs that it does not keep: [`Not`].
    pub fn complement(of: Self) -> Self {
        Self(Kind::Not(Box::new(of)))
    }

    /// The complement of a combination, with the complements pushed to its parts; `None` where it has none.
    pub(in crate::pattern) fn pushed(&self) -> Option<Self> {
        let complements = |of: &[Self; 2]| of.clone().map(Self::complement);
        match &self.0 {
            Kind::Own(_) => None,
            Kind::Not(of) => Some((**of).clone()),
            Kind::And(of) => Some(Self(Kind::Or(Box::new(complements(of))))),
            Kind::Or(of) => Some(Self(Kind::And(Box::new(complements(of))))),
        }
    }

    /// A pattern of the same pairs that borrows nothing, its parts [`written`](Pattern::written) where they can be.
    pub(in crate::pattern) fn written(&self, extent: &Extent) -> Box<dyn Pattern> {
        match &self.0 {
            Kind::Own(own) => own.0.as_pattern().written(extent).unwrap_or_else(|| own.0.boxed()),
            Kind::And(both) => Box::new(And(both[0].written(extent), both[1].written(extent))),
            Kind::Or(both) => Box::new(Or(both[0].written(extent), both[1].written(extent))),
            Kind::Not(of) => Box::new(Not(of.written(extent))),
        }
    }

    /// A pattern of the same identity that borrows nothing.
    pub fn to_pattern(&self) -> Box<dyn Pattern> {
        match &self.0 {
            Kind::Own(own) => own.0.boxed(),
            Kind::And(both) => Box::new(And(both[0].to_pattern(), both[1].to_pattern())),
            Kind::Or(both) => Box::new(Or(both[0].to_pattern(), both[1].to_pattern())),
            Kind::Not(of) => Box::new(Not(of.to_pattern())),
        }
    }
}

impl PartialEq for Own<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.same(other.0)
    }
}

impl Eq for Own<'_> {}

impl Hash for Own<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash_into(state);
    }
}

impl fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Own(own) => own.0.as_pattern().fmt(f),
            Kind::And(of) => f.debug_tuple("And").field(&of[0]).field(&of[1]).finish(),
            Kind::Or(of) => f.debug_tuple("Or").field(&of[0]).field(&of[1]).finish(),
            Kind::Not(of) => f.debug_tuple("Not").field(of).finish(),
        }
    }
}

/// By [`Identity`]: the same type and equal parameters.
impl PartialEq for dyn Pattern + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for dyn Pattern + '_ {}

/// By [`Identity`]: equal patterns have equal hashes.
impl Hash for dyn Pattern + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// Boxed; a pattern behind a shorter reference has [`Identity::to_pattern`].
impl ToOwned for dyn Pattern {
    type Owned = Box<dyn Pattern>;

    fn to_owned(&self) -> Box<dyn Pattern> {
        self.identity().to_pattern()
    }
}

impl Clone for Box<dyn Pattern> {
    fn clone(&self) -> Self {
        (**self).to_owned()
    }
}
