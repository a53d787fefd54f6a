//! The settings of the brains and of the uplinks, as scenario files and policies name them.

use pantala_sim::{Scenario, Turns};
use pantala_swarm::{Locality, Shape};
use pantala_window::{Order, WindowSize};
use serde::Deserialize;

use crate::units::Time;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SwarmKeys {
    stripes: Option<u32>,
    chain: Option<u32>,
    others: Option<usize>,
    locality: Option<Near>,
    lease_timeout: Option<Time>,
    lease_pieces: Option<u32>,
    shape: Option<ShapeKey>,
    make_leaves: Option<bool>,
    probe: Option<bool>,
}

/// How the supernode finds out who is near whom.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Near {
    Labels,
    Measured,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ShapeKey {
    Trees,
    Mesh,
    PerPiece,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OrderKey {
    Ascending,
    Rarest,
    RarestByLot,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PickerKeys {
    window: Option<u32>,
    window_min: Option<u32>,
    window_max: Option<u32>,
    patience: Option<Time>,
    hedges: Option<usize>,
    order: Option<OrderKey>,
    urgent: Option<u32>,
    ask_after: Option<Time>,
    requests_per_parent: Option<usize>,
}

/// Which child an uplink serves next.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UplinkKeys {
    slots: Option<usize>,
    #[serde(default)]
    urgent: bool,
}

impl SwarmKeys {
    pub fn set(&self, scenario: &mut Scenario) {
        let swarm = &mut scenario.swarm;
        swarm.stripes = self.stripes.unwrap_or(swarm.stripes);
        swarm.chain = self.chain.unwrap_or(swarm.chain);
        swarm.others = self.others.unwrap_or(swarm.others);
        if let Some(near) = self.locality {
            swarm.locality = match near {
                Near::Labels => Locality::Labels,
                Near::Measured => Locality::Measured,
            };
        }
        swarm.lease_pieces = self.lease_pieces.unwrap_or(swarm.lease_pieces);
        swarm.shape = match self.shape {
            Some(ShapeKey::Trees) => Shape::Trees,
            Some(ShapeKey::Mesh) => Shape::Mesh,
            Some(ShapeKey::PerPiece) => Shape::PerPiece,
            None => swarm.shape,
        };
        swarm.make_leaves = self.make_leaves.unwrap_or(swarm.make_leaves);
        swarm.probe = self.probe.unwrap_or(swarm.probe);
        if let Some(timeout) = self.lease_timeout {
            swarm.lease_timeout = timeout.0;
        }
    }
}

impl PickerKeys {
    pub fn check(&self) -> Result<(), String> {
        if self.window.is_some() && (self.window_min.is_some() || self.window_max.is_some()) {
            return Err("picker: either window, or window-min and window-max".into());
        }
        if self.hedges == Some(0) || self.requests_per_parent == Some(0) {
            return Err("picker: hedges and requests-per-parent must be 1 at least".into());
        }
        Ok(())
    }

    pub fn set(&self, scenario: &mut Scenario) {
        let picker = &mut scenario.picker;
        if let WindowSize::Adaptive { min, max } = &mut picker.window {
            *min = self.window_min.unwrap_or(*min);
            *max = self.window_max.unwrap_or(*max);
        }
        if let Some(pieces) = self.window {
            picker.window = WindowSize::Static(pieces);
        }
        if let Some(patience) = self.patience {
            picker.patience = patience.0;
        }
        picker.hedges = self.hedges.unwrap_or(picker.hedges);
        picker.order = match self.order {
            Some(OrderKey::Ascending) => Order::Ascending,
            Some(OrderKey::Rarest) => Order::Rarest,
            Some(OrderKey::RarestByLot) => Order::RarestByLot,
            None => picker.order,
        };
        picker.urgent = self.urgent.unwrap_or(picker.urgent);
        if let Some(pause) = self.ask_after {
            picker.ask_after = pause.0;
        }
        if let Some(requests) = self.requests_per_parent {
            picker.requests_per_parent = requests;
        }
    }
}

impl UplinkKeys {
    pub fn check(&self) -> Result<(), String> {
        match self.slots {
            Some(0) => Err("uplink: with slots 0 nothing would be sent".into()),
            Some(_) if self.urgent => Err("uplink: either slots or urgent".into()),
            _ => Ok(()),
        }
    }

    pub fn set(&self, scenario: &mut Scenario) {
        scenario.uplink = match self.slots {
            _ if self.urgent => Turns::Urgent,
            Some(slots) => Turns::Few(slots),
            None => Turns::All,
        };
    }
}
