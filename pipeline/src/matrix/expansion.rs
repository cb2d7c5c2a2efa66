//! Which combinations of its axes a stage stands for, and its stanza in each. Knows nothing of how axes are written.

use super::{Axis, Combination, VARIANT, fill, list, refer};
use crate::axes::AxisValue;
use crate::error::{Place, Problem};
use crate::fields::texts_of;
use crate::spec::{Does, Stanza};
use crate::yaml::{At, Item, Node};
use std::collections::{HashMap, HashSet};

/// Which value of each axis; only those of a stage's axes matter.
pub(super) type Cell = Vec<usize>;

/// A stage as the recipe writes it, in all variants.
pub(super) struct Base<'a> {
    pub(super) name: String,
    /// Its stanza in each variant.
    pub(super) written: Vec<Option<&'a Stanza>>,
    /// The axes it varies along, one bit each.
    pub(super) mask: u32,
    /// For a gathering stage: the axes that it puts together.
    pub(super) over: Option<u32>,
}

/// A combination, but for the axes along which a stage does not vary.
fn own(base: &Base<'_>, cell: &Cell) -> Cell {
    let value = |(bit, value): (usize, &usize)| if base.mask >> bit & 1 == 1 { *value } else { 0 };
    cell.iter().enumerate().map(value).collect()
}

/// The stages of a recipe and the combinations that there are of them.
pub(super) struct Expansion<'a> {
    axes: &'a [Axis],
    excluded: &'a [Combination],
    bases: &'a [Base<'a>],
    ids: &'a HashMap<&'a str, usize>,
    /// Stages for combinations of their own axes that the command line chose, but not what they would be made of.
    gone: HashSet<(usize, Cell)>,
}

impl<'a> Expansion<'a> {
    /// All of them, but for the combinations `excluded`, and for what the command line did not choose nor what it is
    /// made of.
    pub(super) fn new(
        axes: &'a [Axis],
        excluded: &'a [Combination],
        bases: &'a [Base<'a>],
        ids: &'a HashMap<&'a str, usize>,
    ) -> Expansion<'a> {
        let mut all = Expansion { axes, excluded, bases, ids, gone: HashSet::new() };
        all.leave_out();
        all
    }

    /// All combinations of the axes in `mask` that exist for a stage, the others as in `fixed`; the first axis
    /// outermost.
    pub(super) fn cells(&self, base: &Base<'_>, mask: u32, fixed: &Cell) -> Vec<Cell> {
        let mut cells = vec![fixed.clone()];
        for (bit, axis) in self.axes.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1) {
            let each = |cell: Cell| {
                (0..axis.values.len()).map(move |value| {
                    let mut cell = cell.clone();
                    cell[bit] = value;
                    cell
                })
            };
            cells = cells.into_iter().flat_map(each).collect();
        }
        let is_excluded = |cell: &Cell| {
            let holds = |&(bit, value): &(usize, usize)| base.mask >> bit & 1 == 1 && cell[bit] == value;
            self.excluded.iter().any(|combination| combination.iter().all(holds))
        };
        cells.retain(|cell| self.written(base, cell).is_some() && !is_excluded(cell));
        cells
    }

    fn written<'b>(&self, base: &Base<'b>, cell: &Cell) -> Option<&'b Stanza> {
        let case = if base.written.len() > 1 && base.mask & 1 == 1 { cell[0] } else { 0 };
        base.written[case]
    }

    fn own(&self, base: &Base<'_>) -> impl Iterator<Item = (usize, &Axis)> {
        let mask = base.mask;
        self.axes.iter().enumerate().filter(move |(bit, _)| mask >> bit & 1 == 1)
    }

    pub(super) fn is_chosen(&self, base: &Base<'_>, cell: &Cell) -> bool {
        self.own(base).all(|(bit, axis)| axis.chosen[cell[bit]])
    }

    /// Whether it was chosen, with what it is made of.
    pub(super) fn is_there(&self, id: usize, cell: &Cell) -> bool {
        let base = &self.bases[id];
        self.is_chosen(base, cell) && (self.gone.is_empty() || !self.gone.contains(&(id, own(base, cell))))
    }

    /// Finds what would gather only what the command line did not choose, and what reads that.
    fn leave_out(&mut self) {
        if self.axes.iter().all(|axis| axis.chosen.iter().all(|chosen| *chosen)) {
            return;
        }
        let mut open: Vec<(usize, Cell, Vec<usize>)> = Vec::new();
        for (id, base) in self.bases.iter().enumerate() {
            let cells = self.cells(base, base.mask, &vec![0; self.axes.len()]);
            for cell in cells.into_iter().filter(|cell| self.is_chosen(base, cell)) {
                let mut needs = Vec::new();
                let mut stanza = self.written(base, &cell).expect("it is one that exists").clone();
                refer(&mut stanza, &mut |name| needs.extend(self.ids.get(name.as_str()).copied()));
                open.push((id, cell, needs));
            }
        }
        // what is left out only grows, so this ends, circles or not
        loop {
            let lost = |(id, cell, needs): &(usize, Cell, Vec<usize>)| {
                let is_lost = |&need: &usize| match self.bases[*id].over {
                    Some(over) => {
                        let cells = self.cells(&self.bases[need], self.bases[need].mask & over, cell);
                        !cells.is_empty() && !cells.iter().any(|cell| self.is_there(need, cell))
                    }
                    None => self.gone.contains(&(need, own(&self.bases[need], cell))),
                };
                needs.iter().any(is_lost)
            };
            let (gone, left): (Vec<_>, Vec<_>) = open.into_iter().partition(lost);
            if gone.is_empty() {
                return;
            }
            self.gone.extend(gone.into_iter().map(|(id, cell, _)| (id, cell)));
            open = left;
        }
    }

    /// That `exclude:` left no combination of a stage: `none` at all, or none that the command line chose.
    pub(super) fn nothing_left(&self, base: &Base<'_>, none: bool, place: &dyn Fn(At) -> Place) -> Problem {
        let at = base.written.iter().flatten().next().map_or(At::default(), |stanza| stanza.what.at);
        let (which, hint) = match none {
            true => ("no combination", "leave out fewer combinations, or take the stage away"),
            false => ("no combination that `--variant` chose", "choose another one, or leave out fewer"),
        };
        Problem::at(&place(at), format!("`exclude:` leaves {which} of stage `{}`", base.name)).hint(hint)
    }

    pub(super) fn name(&self, base: &Base<'_>, cell: &Cell) -> String {
        let part = |(bit, axis): (usize, &Axis)| {
            let label = &axis.labels[cell[bit]];
            if axis.name == VARIANT { label.clone() } else { format!("{}={label}", axis.name) }
        };
        let parts: Vec<String> = self.own(base).map(part).collect();
        if parts.is_empty() { base.name.clone() } else { format!("{}@{}", base.name, parts.join(",")) }
    }

    /// A stage's stanza for one combination.
    pub(super) fn stanza(&self, base: &Base<'_>, cell: &Cell) -> Option<Stanza> {
        let mut stanza = self.written(base, cell)?.clone();
        let values: Vec<(&str, &Item)> =
            self.own(base).map(|(bit, axis)| (axis.name.as_str(), &axis.values[cell[bit]])).collect();
        fill(&mut stanza.what, &values);
        stanza.fields.iter_mut().for_each(|(_, item)| fill(item, &values));
        match base.over {
            Some(over) => {
                stanza.fields.retain(|(key, _)| key.name != "over");
                let target = if let Node::Text(name) = &stanza.what.node { self.ids.get(name.as_str()) } else { None };
                let names = match target {
                    Some(&target) => {
                        let base = &self.bases[target];
                        let cells = self.cells(base, base.mask & over, cell).into_iter();
                        let there = cells.filter(|cell| self.is_there(target, cell));
                        there.map(|cell| self.name(base, &cell)).collect()
                    }
                    // it is not there: whoever wires the stages says so
                    None => texts_of(&stanza.what).unwrap_or_default().into_iter().map(|(_, name)| name).collect(),
                };
                stanza.what.node = list(stanza.what.at, names);
                stanza.does = Does::Concat;
            }
            None => refer(&mut stanza, &mut |name| {
                if let Some(&target) = self.ids.get(name.as_str()) {
                    *name = self.name(&self.bases[target], cell);
                }
            }),
        }
        stanza.base = base.name.clone();
        stanza.name = self.name(base, cell);
        stanza.axes = self
            .own(base)
            .map(|(bit, axis)| AxisValue {
                axis: axis.name.clone(),
                ty: axis.ty,
                value: axis.columns[cell[bit]].clone(),
            })
            .collect();
        Some(stanza)
    }
}
