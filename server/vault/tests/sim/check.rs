//! What must hold after every event, and what must hold in the end.

use std::collections::BTreeSet;
use std::time::Duration;

use coffer_storage::faulty::Faults;
use coffer_vault::Operation;
use serde_json::{Value, json};

use crate::world::World;

/// How long after the last fault nothing may be left that should be gone: the longest pause between two tries, twice,
/// for a try may have failed just before; and the second cleaning of what was never delivered.
const BOUND: Duration = Duration::from_secs(2 * 300 + 2 * 60 + 60);

impl World {
    /// After every event.
    pub fn check(&mut self) -> Result<(), String> {
        if let Some(broken) = self.target.inside().broken.pop() {
            return Err(broken);
        }
        self.without_faults(|world| {
            world.no_account_without_a_lease()?;
            world.nobody_is_cut_off()?;
            world.the_dead_are_refused()
        })
    }

    fn accounts(&self) -> BTreeSet<String> {
        self.target.inside().accounts.clone()
    }

    fn looked_up(&mut self, account: &str) -> Vec<Value> {
        let below = format!("sys/leases/lookup/database/creds/{account}/");
        let listed = self.as_root(Operation::List, &below, Value::Null).unwrap();
        let names = listed.body["data"]["keys"].as_array().cloned().unwrap_or_default();
        let mut found = Vec::new();
        for name in names {
            let id = format!("database/creds/{account}/{}", name.as_str().unwrap());
            let lease =
                self.as_root(Operation::Update, "sys/leases/lookup", json!({"lease_id": id})).unwrap();
            found.push(lease.body["data"].clone());
        }
        found
    }

    fn no_account_without_a_lease(&mut self) -> Result<(), String> {
        for account in self.accounts() {
            // A sweep below may have taken it away.
            if self.accounts().contains(&account) && self.looked_up(&account).is_empty() {
                return Err(format!("{account} lives and nobody knows of it{}", self.by_id(&account)));
            }
            // What a crash interrupted goes on with the next sweep, and no later.
            if self.is_of_a_revoked_token(&account) && self.sweep() && self.is_of_a_revoked_token(&account) {
                return Err(format!("{account} is held by a token that was revoked"));
            }
        }
        Ok(())
    }

    /// What the server says of a lease whose name its holder knows, though no list has it.
    fn by_id(&mut self, account: &str) -> String {
        let Some(id) =
            self.leases.iter().find(|lease| lease.account == account).map(|lease| lease.id.clone())
        else {
            return String::new();
        };
        let said = self.as_root(Operation::Update, "sys/leases/lookup", json!({"lease_id": id})).unwrap();
        format!(", but by its name it is found: {} {}", said.status, said.body["data"]["state"])
    }

    /// Whether nobody has begun to take it away although its token was revoked.
    fn is_of_a_revoked_token(&mut self, account: &str) -> bool {
        let leases = self.looked_up(account);
        let of =
            |lease: &Value| self.tokens.iter().find(|token| lease["accessor"] == token.accessor.as_str());
        leases.iter().any(|lease| lease["state"] == "active" && of(lease).is_some_and(|token| token.revoked))
    }

    /// What was promised and not taken back is there.
    fn nobody_is_cut_off(&self) -> Result<(), String> {
        let accounts = self.accounts();
        let due = self
            .leases
            .iter()
            .filter(|lease| !lease.ended && self.now() < lease.expires && self.alive(lease.token));
        for lease in due {
            if !accounts.contains(&lease.account) {
                return Err(format!("{} is gone before its time", lease.account));
            }
        }
        Ok(())
    }

    fn the_dead_are_refused(&mut self) -> Result<(), String> {
        for at in 0..self.tokens.len() {
            let (dead, alive) = (self.dead(at), self.alive(at));
            let by = self.tokens[at].token.clone();
            let status = self.ask(Operation::Read, "secret/data/x", &by, Value::Null).unwrap().status;
            if dead && status != 403 {
                return Err(format!("the dead token {at} is answered with {status}: {}", self.told_of(at)));
            }
            if alive && status != 200 {
                return Err(format!("the living token {at} is answered with {status}"));
            }
        }
        Ok(())
    }

    /// What its holder knows of a token's end.
    fn told_of(&self, at: usize) -> String {
        let token = &self.tokens[at];
        let left = |end: coffer_core::time::Timestamp| {
            i128::from(end.as_millis()) - i128::from(self.now().as_millis())
        };
        let above =
            token.parent.map_or_else(String::new, |parent| format!("; above it {}", self.told_of(parent)));
        format!(
            "{} ms left, {} at most, revoked {}, outages {} of {}{above}",
            left(token.expires),
            left(token.max_expires),
            token.revoked,
            token.outages,
            self.outages
        )
    }

    /// The faults end, and after a bounded time everything is as it should be.
    pub fn settle(&mut self) -> Result<(), String> {
        self.say("no more faults");
        self.set_faults(Faults::default());
        self.disarm();
        {
            let mut inside = self.target.inside();
            (inside.down, inside.flaky) = (0, 0);
        }
        self.land_late();
        self.wait(BOUND);
        self.check()?;
        for account in self.accounts() {
            self.held(&account)?;
        }
        // Longer than anything lives.
        self.wait(Duration::from_secs(3 * 3600));
        self.check()?;
        if let Some(account) = self.accounts().pop_first() {
            return Err(format!("{account} outlived everything"));
        }
        let left = self.as_root(Operation::List, "sys/leases/lookup/database/creds/", Value::Null).unwrap();
        if left.status != 404 {
            return Err(format!("leases are left of accounts that are gone: {}", left.body));
        }
        Ok(())
    }

    fn wait(&mut self, time: Duration) {
        for _ in 0..30 {
            self.advance(time / 30);
            assert!(self.sweep());
        }
    }

    /// An account that is still there is somebody's, and in its time.
    fn held(&mut self, account: &str) -> Result<(), String> {
        let leases = self.looked_up(account);
        let Some(lease) = leases.iter().find(|lease| lease["state"] == "active") else {
            return Err(format!("{account} outlived its lease: {leases:?}"));
        };
        if lease["ttl"].as_u64().unwrap_or_default() == 0 {
            return Err(format!("{account} outlived its time: {lease}"));
        }
        let holder = self.tokens.iter().position(|token| lease["accessor"] == token.accessor.as_str());
        match holder {
            Some(at) if self.dead(at) => Err(format!("{account} outlived its token {at}")),
            _ => Ok(()),
        }
    }
}
