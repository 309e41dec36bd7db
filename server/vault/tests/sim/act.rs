//! What happens: one event after the other, as the seed says.

use std::time::Duration;

use coffer_storage::faulty::Faults;
use coffer_vault::Operation;
use serde_json::{Value, json};

use rand::RngExt;

use crate::target::TARGETS;
use crate::world::{Answer, LeaseSeen, TokenSeen, World};

impl World {
    /// The next event.
    pub fn act(&mut self) {
        self.advance(Duration::from_millis(7));
        if self.chance(12) {
            self.arm();
        }
        let survived = match self.rng.random_range(0..100) {
            0..12 => self.make_token(),
            12..34 => self.issue(),
            34..42 => self.renew_lease(),
            42..46 => self.renew_token(),
            46..52 => self.revoke_lease(),
            52..56 => self.revoke_token(),
            56..62 => self.read(),
            62..80 => self.time_passes(),
            80..84 => self.database_changes(),
            84..88 => self.store_changes(),
            88..92 => false,
            92..94 => self.seal(),
            94..98 => self.race(),
            _ => {
                self.land_late();
                true
            }
        };
        if survived { self.disarm() } else { self.crash() }
    }

    fn any_token(&mut self) -> Option<usize> {
        if self.tokens.is_empty() { None } else { Some(self.rng.random_range(0..self.tokens.len())) }
    }

    fn any_lease(&mut self) -> Option<usize> {
        if self.leases.is_empty() { None } else { Some(self.rng.random_range(0..self.leases.len())) }
    }

    fn make_token(&mut self) -> bool {
        let parent = if self.chance(40) { self.any_token() } else { None };
        let by = parent.map_or_else(|| self.root(), |at| self.tokens[at].token.clone());
        let ttl = self.rng.random_range(60..1800);
        let max = Duration::from_secs(self.rng.random_range(1800..5400));
        let body = json!({"policies": ["user"], "ttl": ttl, "explicit_max_ttl": max.as_secs()});
        let Some(answer) = self.ask(Operation::Update, "auth/token/create", &by, body) else { return false };
        self.say(format_args!("token {} (parent {parent:?}): {}", self.tokens.len(), answer.status));
        if answer.succeeded() {
            let seen = TokenSeen {
                token: answer.text("/auth/client_token"),
                accessor: answer.text("/auth/accessor"),
                parent,
                expires: self.now().plus(answer.seconds("/auth/lease_duration")),
                max_expires: self.now().plus(max),
                outages: self.outages,
                revoked: false,
                doubtful: false,
            };
            self.refuse_the_dead(parent, "made a token");
            self.tokens.push(seen);
        }
        true
    }

    /// Whoever was just served was not known to be dead.
    fn refuse_the_dead(&mut self, token: Option<usize>, what: &str) {
        if let Some(at) = token.filter(|at| self.dead(*at)) {
            self.target.inside().broken.push(format!("the dead token {at} {what}"));
        }
    }

    fn account(&mut self) -> String {
        self.next_account += 1;
        format!("r{}", self.next_account)
    }

    fn issue(&mut self) -> bool {
        let Some(at) = self.any_token() else { return true };
        let account = self.account();
        let by = self.tokens[at].token.clone();
        let path = format!("database/creds/{account}");
        let Some(answer) = self.ask(Operation::Read, &path, &by, Value::Null) else {
            self.say(format_args!("token {at} asks for {account}"));
            return false;
        };
        self.issued(at, account, &answer);
        true
    }

    fn issued(&mut self, at: usize, account: String, answer: &Answer) {
        self.say(format_args!("token {at} asks for {account}: {}", answer.status));
        if answer.succeeded() {
            self.refuse_the_dead(Some(at), "was given a credential");
            let expires = self.now().plus(answer.seconds("/lease_duration"));
            self.leases.push(LeaseSeen {
                id: answer.text("/lease_id"),
                account,
                token: at,
                expires,
                ended: false,
            });
        }
    }

    fn renew_lease(&mut self) -> bool {
        let Some(at) = self.any_lease() else { return true };
        let (id, token) = (self.leases[at].id.clone(), self.leases[at].token);
        let account = self.leases[at].account.clone();
        let by = self.tokens[token].token.clone();
        let increment = self.rng.random_range(0..1200);
        let body = json!({"lease_id": id, "increment": increment});
        let Some(answer) = self.ask(Operation::Update, "sys/leases/renew", &by, body) else { return false };
        self.say(format_args!("lease of {account} renewed: {}", answer.status));
        if answer.succeeded() {
            self.refuse_the_dead(Some(token), "renewed a lease");
            self.leases[at].expires = self.now().plus(answer.seconds("/lease_duration"));
        }
        true
    }

    fn renew_token(&mut self) -> bool {
        let Some(at) = self.any_token() else { return true };
        let by = self.tokens[at].token.clone();
        let Some(answer) = self.ask(Operation::Update, "auth/token/renew-self", &by, json!({})) else {
            self.tokens[at].outages = u32::MAX;
            return false;
        };
        self.say(format_args!("token {at} renewed: {}", answer.status));
        if answer.succeeded() {
            self.refuse_the_dead(Some(at), "was renewed");
            self.tokens[at].expires = self.now().plus(answer.seconds("/auth/lease_duration"));
            self.tokens[at].outages = self.outages;
        } else if answer.status >= 500 {
            // It may have been renewed.
            self.tokens[at].outages = u32::MAX;
        }
        true
    }

    fn revoke_lease(&mut self) -> bool {
        let Some(at) = self.any_lease() else { return true };
        let (id, account) = (self.leases[at].id.clone(), self.leases[at].account.clone());
        self.leases[at].ended = true;
        let answer = self.as_root(Operation::Update, "sys/leases/revoke", json!({"lease_id": id}));
        let status = answer.as_ref().map(|answer| answer.status);
        self.say(format_args!("lease of {account} revoked: {status:?}"));
        answer.is_some()
    }

    fn revoke_token(&mut self) -> bool {
        let Some(at) = self.any_token() else { return true };
        let body = json!({"token": self.tokens[at].token});
        self.tokens[at].doubtful = true;
        let answer = self.as_root(Operation::Update, "auth/token/revoke", body);
        self.revoked(at, answer.as_ref());
        answer.is_some()
    }

    fn revoked(&mut self, at: usize, answer: Option<&Answer>) {
        self.say(format_args!("token {at} revoked: {:?}", answer.map(|answer| answer.status)));
        self.tokens[at].revoked |= answer.is_some_and(Answer::succeeded);
    }

    fn read(&mut self) -> bool {
        let Some(at) = self.any_token() else { return true };
        let by = self.tokens[at].token.clone();
        let Some(answer) = self.ask(Operation::Read, "secret/data/x", &by, Value::Null) else { return false };
        self.say(format_args!("token {at} reads: {}", answer.status));
        if answer.succeeded() {
            self.refuse_the_dead(Some(at), "read a secret");
        } else if answer.status == 403 && self.alive(at) {
            self.target.inside().broken.push(format!("the living token {at} was refused"));
        }
        true
    }

    fn time_passes(&mut self) -> bool {
        let by: u64 =
            if self.chance(30) { self.rng.random_range(60..1500) } else { self.rng.random_range(1..60) };
        self.say(format_args!("{by} s pass"));
        // The background goes on meanwhile; in steps, for it is not looked at every second here.
        let step = by.div_ceil(4);
        for _ in 0..4 {
            self.advance(Duration::from_secs(step));
            if !self.sweep() {
                return false;
            }
        }
        true
    }

    fn database_changes(&mut self) -> bool {
        let (down, flaky) = match self.rng.random_range(0..3) {
            0 => (self.rng.random_range(1..1 << TARGETS), 0),
            1 => (0, 30),
            _ => (0, 0),
        };
        self.say(format_args!("databases: down {down:03b}, {flaky} of 100 calls fail"));
        let mut inside = self.target.inside();
        (inside.down, inside.flaky) = (down, flaky);
        true
    }

    fn store_changes(&mut self) -> bool {
        let faults = match self.rng.random_range(0..3) {
            0 => Faults {
                read_fails: 0.01,
                delay: 0.2,
                commit_fails: 0.05,
                unknown_applied: 0.03,
                unknown_lost: 0.03,
                unknown_late: 0.03,
            },
            1 => Faults { delay: 0.5, ..Faults::default() },
            _ => Faults::default(),
        };
        self.say(format_args!("store: {faults:?}"));
        self.set_faults(faults);
        true
    }

    fn seal(&mut self) -> bool {
        let Some(answer) = self.as_root(Operation::Update, "sys/seal", Value::Null) else { return false };
        let away = self.rng.random_range(0..900);
        self.say(format_args!("sealed for {away} s: {}", answer.status));
        if answer.succeeded() {
            self.disarm();
            self.advance(Duration::from_secs(away));
            self.unseal();
        }
        true
    }

    /// A token asks for a credential while it is revoked.
    fn race(&mut self) -> bool {
        let Some(at) = self.any_token() else { return true };
        let account = self.account();
        let by = self.tokens[at].token.clone();
        let issue = (Operation::Read, format!("database/creds/{account}"), by.clone(), Value::Null);
        let revoke = (Operation::Update, "auth/token/revoke".to_owned(), self.root(), json!({"token": by}));
        self.say(format_args!("token {at} is revoked while it asks for {account}"));
        let known = self.dead(at);
        self.tokens[at].doubtful = true;
        // Each call gives way to others now and then: so they meet in every order.
        let before = self.faults;
        self.set_faults(Faults { delay: 0.5, ..before });
        let both = self.ask_both(issue, revoke);
        self.set_faults(before);
        let Some((issued, revoked)) = both else { return false };
        if issued.succeeded() && known {
            self.refuse_the_dead(Some(at), "was given a credential");
        }
        if issued.succeeded() {
            let expires = self.now().plus(issued.seconds("/lease_duration"));
            let id = issued.text("/lease_id");
            self.leases.push(LeaseSeen { id, account, token: at, expires, ended: true });
        }
        self.revoked(at, Some(&revoked));
        true
    }
}
