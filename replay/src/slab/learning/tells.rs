//! What an event tells of other objects than its own: of trees, and of grace periods.

use kmemlab_trace::event::{Context, Event};

use super::Learning;
use crate::slab::follow::Object;
use crate::slab::role::Role;

impl Learning {
    #[inline]
    pub(super) fn role(&self, event: &Event) -> Role {
        self.roles.get(event.stack as usize).copied().unwrap_or_default()
    }

    /// What a free tells of others.
    pub(super) fn free_tells(&mut self, object: Object, event: &Event) {
        self.trees.give_back(event, None);
        let (role, address) = (self.role(event), event.pfn_or_address);
        let (thread, at_ns, cpu) = (event.pid.0, event.time.0, event.cpu.0);
        let is_softirq = event.context.0 & Context::SOFTIRQ != 0;
        match role {
            Role::Grace if is_softirq => self.graces.freed(at_ns, cpu),
            Role::PidGone if is_softirq => self.graces.ran(address, at_ns, cpu),
            Role::Release if object.cache == self.handlers => {
                self.graces.released(address, at_ns, cpu);
            }
            Role::Exit if object.cache == self.tree_caches.1 => self.trees.leaves(thread),
            _ if object.cache == self.tree_caches.1 => self.trees.area_gone(thread),
            _ => {}
        }
        if object.cache == self.tree_caches.0 {
            self.trees.free(object.number, thread, at_ns, cpu, role);
        }
    }

    /// Nodes of trees are in sheaves (6.18). Before, their frees come in batches, whenever, and
    /// many nodes have no event at all.
    pub(in crate::slab) fn has_tree_sheaves(&self) -> bool {
        self.sheaves.get(self.tree_caches.0.index()) == Some(&true)
    }

    /// What an allocation tells of others. Answers whether it dates the free of what was there.
    pub(super) fn alloc_tells(&mut self, object: Object, event: &Event) -> bool {
        let (role, thread) = (self.role(event), event.pid.0);
        if object.cache == self.tree_caches.0 && self.has_tree_sheaves() {
            let taken = (event.pfn_or_address, event.time.0, event.cpu.0);
            let is_prefilled = role.is_prefilled() && event.gfp & self.direct_reclaim == 0;
            self.trees.give_back(event, is_prefilled.then_some(thread));
            if is_prefilled {
                self.learned.cache_mut(object.cache).lends = true;
            }
            self.trees.take(object.number, taken, thread, role, is_prefilled);
            return true;
        }
        self.trees.give_back(event, None);
        if object.cache == self.handlers {
            self.graces.handlers(thread, event.pfn_or_address);
        } else if object.cache == self.tree_caches.1 {
            self.trees.area(thread);
        } else if role == Role::NewPid {
            self.graces.number(thread, event.pfn_or_address);
        }
        false
    }
}
