//! Secrets that get their next value by themselves: intent, apply, publish as the next version, retire the last one.
//!
//! Each step is durable before the next. A generated value is stored before anybody hears of it; a webhook is asked under
//! a key that is stored before, and stays the same until its answer is published. Whatever stops in between, the version
//! that is handed out is good, and whoever goes on does so from where it stopped.

#[cfg(test)]
mod fuzz;
mod hook;
mod policy;

use std::time::Duration;

use coffer_barrier::{Barrier, BarrierError, MountId};
use coffer_core::rotation::{Busy, Step};
use coffer_core::secret::SecretString;
use coffer_core::time::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use self::policy::{Policy, Work};
use super::{Written, data, effect, versions};
use crate::engine::{Due, Effect, EngineReply, EngineRequest};
use crate::passwords;
use crate::turns::Moment;
use crate::webhook::Webhooks;
use crate::{EngineError, ReadView, WriteView, input};

/// How often a transaction is run again after a conflict.
const ATTEMPTS_MAX: u32 = 8;
/// More steps than any rotation has.
const STEPS_MAX: u32 = 8;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `rotation/<path>`.
pub(super) async fn read(view: &ReadView<'_>, path: &str) -> Result<EngineReply, EngineError> {
    Ok(match policy::load(view, path).await? {
        Some(policy) => EngineReply::Data(policy.json()),
        None => EngineReply::NotFound,
    })
}

/// Whether there is one.
pub(super) async fn exists(view: &ReadView<'_>, path: &str) -> Result<bool, EngineError> {
    Ok(policy::load(view, path).await?.is_some())
}

pub(super) async fn write(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    let stored = policy::load(&view.reading(), path).await?;
    let was = stored.as_ref().map(Policy::wake);
    let policy = Policy::merged(stored, req)?;
    if let Some(webhook) = &policy.webhook {
        hook::allowed(&view.reading()).await?.check(&webhook.url)?;
    }
    policy::store(view, path, was, &policy).await?;
    Ok((EngineReply::Empty, effect("kv-v2/rotation-write", "rotation-write", "rotation", path)))
}

pub(super) async fn delete(view: &mut WriteView<'_>, path: &str) -> Written {
    let gone = policy::delete(view, path).await?;
    let effects = effect("kv-v2/rotation-delete", "rotation-delete", "rotation", path);
    Ok((EngineReply::Empty, if gone { effects } else { Vec::new() }))
}

/// `rotation-config`: which webhooks this mount may call.
pub(super) async fn read_config(view: &ReadView<'_>) -> Result<EngineReply, EngineError> {
    Ok(EngineReply::Data(hook::allowed(view).await?.json()))
}

pub(super) async fn write_config(view: &mut WriteView<'_>, req: &EngineRequest<'_>) -> Written {
    hook::write_allowed(view, req).await?;
    let effects = vec![Effect {
        event_type: "kv-v2/rotation-config-write",
        path: "rotation-config".to_owned(),
        operation: "rotation-config-write",
    }];
    Ok((EngineReply::Empty, effects))
}

/// The secret is gone, with all its versions.
pub(super) async fn forget(view: &mut WriteView<'_>, path: &str) -> Result<(), EngineError> {
    policy::delete(view, path).await.map(drop)
}

/// What is known of a secret's rotation.
pub(super) async fn status(view: &ReadView<'_>, path: &str) -> Result<Option<Value>, EngineError> {
    let Some(policy) = policy::load(view, path).await? else { return Ok(None) };
    let mut shown = policy.phase();
    shown.insert("pending".to_owned(), json!([]));
    // Reads of the key-value engine leave no trace, so anybody may have the last version.
    shown.insert("undeclared_readers".to_owned(), json!(true));
    Ok(Some(Value::Object(shown)))
}

/// What is due.
pub(super) async fn due(view: &ReadView<'_>, now: Timestamp, limit: usize) -> Result<Vec<Due>, EngineError> {
    let mut due = Vec::new();
    for path in policy::due(view, now, limit).await? {
        let Some(policy) = policy::load(view, &path).await? else { continue };
        // One webhook that does not answer holds up no other, and no generator.
        let target = policy.webhook.map_or_else(|| format!("rotate/{path}"), |hook| hook::target(&hook.url));
        due.push(Due { path: format!("rotate/{path}"), target });
    }
    Ok(due)
}

/// A value on its way; wiped when it is dropped, also on the way of an error.
struct Passing(Map<String, Value>);

impl Drop for Passing {
    fn drop(&mut self) {
        self.0.values_mut().for_each(data::scrub);
    }
}

/// One secret of one mount, on its way to the next value.
pub(super) struct Turning<'a> {
    pub(super) webhooks: &'a dyn Webhooks,
    pub(super) barrier: &'a Barrier,
    pub(super) mount: MountId,
    pub(super) clock: Moment,
    pub(super) path: &'a str,
}

impl Turning<'_> {
    /// Begins a rotation whatever its time.
    pub(super) async fn ask(&self, req: &EngineRequest<'_>) -> Result<(), EngineError> {
        let force = input::boolean(req.body, "force")?.unwrap_or(false);
        let asked = self.change(|policy, now| {
            if force && let Some(last) = policy.rotation.retiring.as_ref().map(|last| last.version) {
                policy.rotation.released(last, now);
            } else if policy.rotation.retiring.is_some() {
                return Err(EngineError::bad(Busy::Grace.to_string()));
            }
            policy.wanted(now);
            Ok(())
        });
        match asked.await {
            Err(EngineError::NotFound) => Err(EngineError::bad("no rotation is set for this secret")),
            other => other,
        }
    }

    /// Takes all steps that can be taken now. Returns what became visible.
    pub(super) async fn go_on(&self) -> Result<Vec<Effect>, EngineError> {
        let mut seen = Vec::new();
        for _ in 0..STEPS_MAX {
            let Some(policy) = self.load().await? else { break };
            let now = self.clock.now();
            match policy.rotation.next(policy.due(), now) {
                Step::Wait(_) => break,
                Step::Intend if !policy.in_time(now) => {
                    self.change(|policy, now| {
                        policy.missed(now);
                        Ok(())
                    })
                    .await?;
                }
                Step::Intend => self.intend(&policy).await?,
                Step::Apply => match self.apply(&policy).await {
                    Ok(effects) => seen.extend(effects),
                    Err(error) => {
                        return self.failed(policy.rotation.candidate.map(|c| c.version), error).await;
                    }
                },
                Step::Retire => match self.retire(&policy).await {
                    Ok(effects) => seen.extend(effects),
                    Err(error) => {
                        return self.failed(policy.rotation.retiring.map(|r| r.version), error).await;
                    }
                },
            }
        }
        Ok(seen)
    }

    async fn failed(&self, version: Option<u64>, error: EngineError) -> Result<Vec<Effect>, EngineError> {
        let why = error.to_string();
        let noted = self.change(|policy, now| {
            if let Some(version) = version {
                policy.rotation.failed(version, now, &why);
            }
            Ok(())
        });
        match noted.await {
            Ok(()) | Err(EngineError::NotFound) => Err(error),
            Err(other) => Err(other),
        }
    }

    /// Whoever is first decides; the value of another is never seen by anybody.
    async fn intend(&self, policy: &Policy) -> Result<(), EngineError> {
        let value = match &policy.generator {
            None => None,
            Some(generator) if generator.password_policy.is_empty() => {
                Some(generator.own()?.generate(&mut rand::rng()))
            }
            Some(generator) => {
                let reader = self.barrier.reader().await?;
                let view = ReadView::new(self.mount, &reader);
                Some(passwords::generate(&view, &generator.password_policy).await?)
            }
        };
        let key = hex::encode(rand::random::<[u8; 16]>());
        self.change(|policy, now| {
            let value = value.as_ref().map(|value| SecretString::copy_of(value.expose()));
            let _busy = policy.rotation.intend(Work { key: key.clone(), value }, 2, now);
            Ok(())
        })
        .await
    }

    /// Has the value taken where it must be, and only then hands it out.
    async fn apply(&self, policy: &Policy) -> Result<Vec<Effect>, EngineError> {
        let Some(candidate) = &policy.rotation.candidate else { return Ok(Vec::new()) };
        let made = candidate
            .secret
            .value
            .as_ref()
            .map(|value| Passing(Map::from_iter([(policy.field.clone(), json!(value.expose()))])));
        let change = match (&policy.webhook, made) {
            (None, Some(made)) => made,
            (None, None) => {
                return Err(EngineError::bad("a rotation needs length, password_policy or webhook_url"));
            }
            (Some(webhook), made) => {
                self.check(&webhook.url).await?;
                let ask = hook::Ask {
                    action: "rotate",
                    path: self.path,
                    key: candidate.secret.key.clone(),
                    version: policy.published,
                    data: made.as_ref().map(|made| &made.0),
                };
                let answer = hook::ask(self.webhooks, webhook, &ask, self.clock.now()).await?;
                match made {
                    Some(made) => made,
                    None => Passing(hook::data_of(&webhook.url, &answer)?),
                }
            }
        };
        self.publish(candidate.version, &candidate.secret.key, &change).await
    }

    async fn check(&self, url: &str) -> Result<(), EngineError> {
        let reader = self.barrier.reader().await?;
        hook::allowed(&ReadView::new(self.mount, &reader)).await?.check(url)
    }

    /// The version and the policy's state, in one transaction.
    async fn publish(&self, candidate: u64, key: &str, change: &Passing) -> Result<Vec<Effect>, EngineError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut writer = self.barrier.begin().await?;
            let mut view = WriteView::new(self.mount, &mut writer);
            let Some(mut policy) = policy::load(&view.reading(), self.path).await? else {
                return Ok(Vec::new());
            };
            let same = policy.rotation.candidate.as_ref().is_some_and(|now| now.secret.key == key);
            if !same {
                // Published before, by this or by another: what was not heard is read back here.
                return Ok(self.rotated());
            }
            let (was, now) = (policy.wake(), self.clock.now());
            let number = data::publish(&mut view, now, self.path, &change.0).await?;
            policy.publish(candidate, number, now);
            policy::store(&mut view, self.path, Some(was), &policy).await?;
            match writer.commit().await {
                Ok(_) => return Ok(self.rotated()),
                Err(BarrierError::Conflict | BarrierError::OutcomeUnknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(BarrierError::Conflict.into())
    }

    fn rotated(&self) -> Vec<Effect> {
        let mut effects = effect("kv-v2/rotate", "rotate", "rotate", self.path);
        effects.extend(effect("kv-v2/data-write", "data-write", "data", self.path));
        effects
    }

    /// Nobody needs the last version any more.
    async fn retire(&self, policy: &Policy) -> Result<Vec<Effect>, EngineError> {
        let Some(last) = &policy.rotation.retiring else { return Ok(Vec::new()) };
        if let Some(webhook) = &policy.webhook {
            self.check(&webhook.url).await?;
            let ask = hook::Ask {
                action: "retire",
                path: self.path,
                key: self.retire_key(policy),
                version: policy.previous,
                data: None,
            };
            hook::ask(self.webhooks, webhook, &ask, self.clock.now()).await?;
        }
        let mut deleted = false;
        for _ in 0..ATTEMPTS_MAX {
            let mut writer = self.barrier.begin().await?;
            let mut view = WriteView::new(self.mount, &mut writer);
            let Some(mut now_stored) = policy::load(&view.reading(), self.path).await? else { break };
            let was = now_stored.wake();
            if !now_stored.rotation.retired(last.version) {
                break;
            }
            deleted = policy.delete_previous
                && versions::retire(&mut view, self.path, policy.previous, self.clock.now()).await?;
            policy::store(&mut view, self.path, Some(was), &now_stored).await?;
            match writer.commit().await {
                Ok(_) => {
                    let gone = effect("kv-v2/delete", "delete", "delete", self.path);
                    return Ok(if deleted { gone } else { Vec::new() });
                }
                Err(BarrierError::Conflict | BarrierError::OutcomeUnknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(if deleted { effect("kv-v2/delete", "delete", "delete", self.path) } else { Vec::new() })
    }

    /// The same for every attempt, and for nothing else.
    fn retire_key(&self, policy: &Policy) -> String {
        let what = format!("{}/{}/{}/{}", self.mount.to_hex(), policy.previous, policy.published, self.path);
        hex::encode(Sha256::digest(what.as_bytes())).chars().take(32).collect()
    }

    async fn load(&self) -> Result<Option<Policy>, EngineError> {
        let reader = self.barrier.reader().await?;
        policy::load(&ReadView::new(self.mount, &reader), self.path).await
    }

    /// Changes the stored policy, in a transaction of its own that is run again after a conflict.
    async fn change(
        &self,
        mut how: impl FnMut(&mut Policy, Timestamp) -> Result<(), EngineError> + Send,
    ) -> Result<(), EngineError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut writer = self.barrier.begin().await?;
            let mut view = WriteView::new(self.mount, &mut writer);
            let mut policy = policy::load(&view.reading(), self.path).await?.ok_or(EngineError::NotFound)?;
            let was = policy.wake();
            how(&mut policy, self.clock.now())?;
            policy::store(&mut view, self.path, Some(was), &policy).await?;
            match writer.commit().await {
                Ok(_) => return Ok(()),
                // Unknown: the next round reads back what is there; every change can be made again.
                Err(BarrierError::Conflict | BarrierError::OutcomeUnknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(BarrierError::Conflict.into())
    }
}
