//! A worker that dies at any point, another that takes over, and a target that remembers what was set there.

use proptest::prelude::*;

use super::*;

const GRACE: Duration = Duration::from_secs(120);
const PERIOD: Duration = Duration::from_secs(3600);

/// What happens to a worker on its way through one step.
#[derive(Clone, Copy, Debug)]
enum Luck {
    /// It gets through.
    Through,
    /// The target is asked, and nobody hears what it said.
    LostAfterTarget,
    /// It dies before the target is asked.
    LostBeforeTarget,
    /// The target refuses.
    Refused,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Step(Luck),
    /// Somebody wants a new password now.
    Asked,
    Later(u64),
    Released,
}

/// The passwords at the target, and who may log in.
#[derive(Default)]
struct Target {
    password: [Option<u64>; 2],
    open: [bool; 2],
}

struct World {
    accounts: usize,
    rotation: Rotation<u64>,
    target: Target,
    now: Timestamp,
    next_secret: u64,
    released: bool,
    promised: Option<(usize, u64, Timestamp)>,
}

impl World {
    fn due(&self) -> Timestamp {
        self.rotation.since.map_or(Timestamp::ZERO, |since| since.plus(PERIOD))
    }

    fn intend(&mut self) {
        self.next_secret += 1;
        let _busy = self.rotation.intend(self.next_secret, self.accounts, self.now);
    }

    fn step(&mut self, luck: Luck) {
        match self.rotation.next(self.due(), self.now) {
            Step::Wait(until) => assert!(until > self.now),
            Step::Intend => self.intend(),
            Step::Apply => self.apply(luck),
            Step::Retire => self.retire(luck),
        }
    }

    fn apply(&mut self, luck: Luck) {
        let candidate = self.rotation.candidate.clone().unwrap();
        match luck {
            Luck::LostBeforeTarget => return,
            Luck::Refused => return self.rotation.failed(candidate.version, self.now, "refused"),
            Luck::Through | Luck::LostAfterTarget => {
                self.target.password[candidate.account] = Some(candidate.secret);
                self.target.open[candidate.account] = true;
            }
        }
        if matches!(luck, Luck::Through) {
            let before = (self.rotation.account, self.rotation.secret);
            assert!(self.rotation.published(candidate.version, self.now, GRACE));
            assert!(!self.rotation.published(candidate.version, self.now, GRACE), "once");
            self.released = false;
            if let (2, (account, Some(secret))) = (self.accounts, before) {
                self.promised = Some((account, secret, self.now.plus(GRACE)));
            }
        }
    }

    fn retire(&mut self, luck: Luck) {
        let retiring = self.rotation.retiring.clone().unwrap();
        match luck {
            Luck::LostBeforeTarget => return,
            Luck::Refused => return self.rotation.failed(retiring.version, self.now, "refused"),
            Luck::Through | Luck::LostAfterTarget => self.target.open[retiring.account] = false,
        }
        if matches!(luck, Luck::Through) {
            assert!(self.rotation.retired(retiring.version));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Step(luck) => self.step(luck),
            Event::Asked => self.intend(),
            Event::Later(secs) => self.now = self.now.plus(Duration::from_secs(secs)),
            Event::Released => {
                if let Some(version) = self.rotation.retiring.as_ref().map(|last| last.version) {
                    self.released = true;
                    self.rotation.released(version, self.now);
                }
            }
        }
    }

    fn works(&self, account: usize, secret: u64) -> bool {
        self.target.open[account] && self.target.password[account] == Some(secret)
    }

    fn check(&self) {
        let rotation = &self.rotation;
        for (account, password) in self.target.password.iter().enumerate() {
            let Some(password) = password else { continue };
            if !self.target.open[account] {
                continue;
            }
            let current = rotation.account == account && rotation.secret == Some(*password);
            let next = rotation.candidate.as_ref().is_some_and(|c| c.secret == *password);
            let last = rotation.retiring.as_ref().is_some_and(|last| last.account == account);
            assert!(current || next || last, "no password that works is unknown");
        }
        if let (2, Some(secret)) = (self.accounts, rotation.secret) {
            assert!(self.works(rotation.account, secret), "what is handed out always works");
        }
        if let (1, Some(secret)) = (self.accounts, rotation.secret) {
            let next = rotation.candidate.as_ref().is_some_and(|c| self.works(c.account, c.secret));
            assert!(next || self.works(rotation.account, secret), "one of the two works");
        }
        if let Some((account, secret, until)) = self.promised
            && self.now < until
            && !self.released
        {
            assert!(self.works(account, secret), "the last one is good to the end of its grace");
        }
        assert!(rotation.candidate.is_none() || rotation.retiring.is_none());
    }
}

fn events() -> impl Strategy<Value = Event> {
    let luck = prop_oneof![
        4 => Just(Luck::Through),
        1 => Just(Luck::LostAfterTarget),
        1 => Just(Luck::LostBeforeTarget),
        1 => Just(Luck::Refused),
    ];
    prop_oneof![
        6 => luck.prop_map(Event::Step),
        1 => Just(Event::Asked),
        3 => (1u64..5000).prop_map(Event::Later),
        1 => Just(Event::Released),
    ]
}

proptest! {
    #[test]
    fn no_password_is_lost_and_all_settles(
        accounts in 1usize..=2,
        history in prop::collection::vec(events(), 1..200),
    ) {
        let mut world = World {
            accounts,
            rotation: Rotation::default(),
            target: Target::default(),
            now: Timestamp::from_secs(1_000_000),
            next_secret: 0,
            released: false,
            promised: None,
        };
        let mut version = 0;
        for event in history {
            world.happen(event);
            world.check();
            prop_assert!(world.rotation.version == version || world.rotation.version == version + 1);
            version = world.rotation.version;
        }
        // Once faults stop, a rotation that was begun ends, and only one password is left.
        for _ in 0..4 {
            world.now = world.rotation.wake(world.due()).max(world.now);
            if world.rotation.candidate.is_none() && world.rotation.retiring.is_none() && version > 0 {
                break;
            }
            world.step(Luck::Through);
            version = world.rotation.version;
            world.check();
        }
        prop_assert!(world.rotation.candidate.is_none() && world.rotation.retiring.is_none());
        let open = world.target.open.iter().filter(|open| **open).count();
        prop_assert_eq!(open, 1);
        prop_assert!(world.works(world.rotation.account, world.rotation.secret.unwrap()));
    }
}

#[test]
fn a_target_that_refuses_is_asked_less_and_less() {
    let mut rotation = Rotation::default();
    let mut now = Timestamp::from_secs(100);
    rotation.intend(1, 1, now).unwrap();
    assert_eq!(rotation.intend(2, 1, now), Err(Busy::UnderWay));
    let mut waits = Vec::new();
    for _ in 0..12 {
        rotation.failed(1, now, &"x".repeat(1000));
        let Step::Wait(until) = rotation.next(now, now) else { panic!("it waits") };
        waits.push(until.saturating_sub(now).as_secs());
        now = until;
        assert_eq!(rotation.next(now, now), Step::Apply);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    assert_eq!(rotation.trouble().unwrap().len(), 256);
    rotation.failed(1, now, "again");
    assert_ne!(rotation.next(now, now), Step::Apply);
    rotation.hurry(now);
    assert_eq!(rotation.next(now, now), Step::Apply);
}

#[test]
fn two_accounts_take_turns_and_the_third_rotation_waits_for_the_grace() {
    let now = Timestamp::from_secs(100);
    let mut rotation = Rotation::default();
    rotation.intend("a", 2, now).unwrap();
    assert!(rotation.published(1, now, GRACE));
    assert!(rotation.retiring.is_none(), "nothing went before the first");
    rotation.intend("b", 2, now).unwrap();
    assert!(rotation.published(2, now, GRACE));
    assert_eq!((rotation.account, rotation.retiring.as_ref().unwrap().account), (1, 0));
    assert_eq!(rotation.intend("c", 2, now), Err(Busy::Grace));
    assert_eq!(rotation.next(now, now), Step::Wait(now.plus(GRACE)));
    rotation.released(2, now);
    assert_eq!(rotation.next(now, now), Step::Wait(now.plus(GRACE)), "that is the current one");
    rotation.released(1, now);
    assert_eq!(rotation.next(now, now), Step::Retire);
    assert!(rotation.retired(1) && !rotation.retired(1));
    rotation.intend("c", 2, now).unwrap();
    assert_eq!(rotation.candidate.as_ref().unwrap().account, 0);
}
