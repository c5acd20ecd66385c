//! Which per-CPU list is whose, and what is on them.

use super::Memory;

impl Memory {
    /// The processor and list index of a per-CPU list.
    pub(crate) fn pcp_of(&self, list: usize) -> (usize, usize) {
        let (machine, lists) = (&self.machine, self.machine.pcp_lists());
        let number = list.saturating_sub(self.pcp(0, 0, 0));
        (number / lists % machine.cpus, number % lists)
    }

    /// Blocks on the per-CPU lists of a zone and processor, in pages.
    #[must_use]
    pub fn pcp_pages(&self, zone: usize, cpu: usize) -> u64 {
        (0..self.machine.pcp_lists())
            .map(|index| {
                let len = self.pages.lists[self.pcp(zone, cpu, index)].len;
                u64::from(len) << self.machine.pcp_list_order(index)
            })
            .sum()
    }
}
