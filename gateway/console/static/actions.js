// What an operator can change: each asks first, and the gateway's audit has a line with the person's name.

import { ask } from "./api.js";
import { confirm, reveal, toast } from "./dialogs.js";
import { h, span } from "./dom.js";

const name = (value) => h("b", {}, value);

export async function drain(node) {
  const done = await confirm({
    title: "Drain this node?",
    text: [h("p", {}, name(node.name), " gets no new work, in every gateway. What runs there may finish, or is moved to other nodes before the deadline."),
      h("p", {}, `It has ${node.in_flight} requests now.`)],
    fields: [{ name: "deadline", label: "End what still runs there after", value: "", options: [["", "never: let it finish"], ["60", "1 minute"], ["300", "5 minutes"], ["900", "15 minutes"], ["3600", "1 hour"]] }],
    label: "Drain", danger: true,
    act: ({ deadline }) => ask("POST", "/admin/drain", { node: node.name, deadline: deadline ? Number(deadline) : null }),
  });
  if (done) toast(`${node.name} is draining.`);
}

export async function undrain(node) {
  const done = await confirm({
    title: "Give this node work again?",
    text: h("p", {}, name(node.name), " gets requests again once it answers probes."),
    label: "Undrain",
    act: () => ask("POST", "/admin/undrain", { node: node.name }),
  });
  if (done) toast(`${node.name} gets work again.`);
}

export async function endRequest(request, now) {
  const done = await confirm({
    title: "End this request?",
    text: [h("p", {}, name(request.id), ` of ${request.tenant ?? "nobody"}, under way for ${span(now - request.began)}.`),
      h("p", {}, "Its client gets an error that says that an administrator ended it, and its node stops working for it. What it used is charged.")],
    label: "End the request", danger: true,
    act: () => ask("DELETE", `/admin/requests/${encodeURIComponent(request.id)}${request.tenant === null ? "" : `?tenant=${encodeURIComponent(request.tenant)}`}`),
  });
  if (done) toast(`The request was ended while it was ${done.phase}.`);
  return done;
}

export async function endSession(session) {
  const done = await confirm({
    title: "End this session?",
    text: [h("p", {}, name(session.person), ` (${session.token}), last seen at ${session.address}.`),
      h("p", {}, "Every gateway refuses its cookie within two seconds, copies of it too. Whoever has the admin token can sign in again.")],
    label: "End the session", danger: true,
    act: () => ask("DELETE", `/admin/console/sessions/${encodeURIComponent(session.id)}`),
  });
  if (done) toast(done.everywhere ? `The session of ${session.person} was ended.` : `The session of ${session.person} was ended here; other gateways are told once Redis answers.`, done.everywhere ? "good" : "warn");
  return done;
}

export async function createKey(tenant, playWith) {
  const made = await confirm({
    title: "New key", text: h("p", {}, "For the tenant ", name(tenant), ". It is shown once."),
    fields: [{ name: "label", label: "What is it for?", most: 100, hint: "Shown in lists and in the audit." },
      { name: "days", label: "Valid for", value: "", options: [["", "ever"], ["1", "a day"], ["30", "30 days"], ["90", "90 days"], ["365", "a year"]] }],
    label: "Create the key",
    act: ({ label, days }) => ask("POST", "/admin/keys", {
      tenant, label, ...(days ? { expires: new Date(Date.now() + days * 86_400_000).toISOString() } : {}),
    }),
  });
  if (made) showKey(made, "The new key", playWith);
  return made;
}

export async function rotateKey(key, playWith) {
  const made = await confirm({
    title: "Rotate this key?", text: h("p", {}, "A key with the same settings takes the place of ", name(key.id), key.label ? ` (${key.label})` : "", ". The old one goes on working for a while, so that clients can change."),
    fields: [{ name: "grace", label: "The old key works for", value: "86400", options: [["0", "no longer"], ["3600", "an hour"], ["86400", "a day"], ["604800", "a week"]] }],
    label: "Rotate",
    act: ({ grace }) => ask("POST", `/admin/keys/${encodeURIComponent(key.id)}/rotate`, { grace_seconds: Number(grace) }),
  });
  if (made) showKey(made, "The key in its place", playWith);
  return made;
}

function showKey(made, title, playWith) {
  const extra = playWith ? { label: "Try it in the playground", act: () => playWith(made.key) } : null;
  reveal({ title, text: "Copy it now: only a hash of it is kept.", secret: made.key, extra });
}

export async function revokeKey(key) {
  const done = await confirm({
    title: "Revoke this key?", text: h("p", {}, name(key.id), key.label ? ` (${key.label})` : "", ` of ${key.tenant} is refused by every gateway within two seconds. This cannot be undone.`),
    label: "Revoke", danger: true,
    act: () => ask("DELETE", `/admin/keys/${encodeURIComponent(key.id)}`),
  });
  if (done) toast(`${key.id} is revoked.`);
  return done;
}

export async function block(tenant) {
  const done = await confirm({
    title: "Block this tenant?", text: h("p", {}, "Every key of ", name(tenant), " is refused by every gateway within two seconds. Requests that are under way go on."),
    fields: [{ name: "reason", label: "Why?", most: 200, hint: "For the audit." }],
    label: "Block", danger: true,
    act: ({ reason }) => ask("POST", "/admin/block", { tenant, reason }),
  });
  if (done) toast(`${tenant} is blocked.`);
}

export async function unblock(tenant) {
  const done = await confirm({
    title: "Let this tenant in again?", text: h("p", {}, name(tenant), "'s keys work again within two seconds."),
    label: "Unblock", act: () => ask("POST", "/admin/unblock", { tenant }),
  });
  if (done) toast(`${tenant} is let in again.`);
}

export async function reload() {
  const done = await confirm({
    title: "Read the configuration again?",
    text: h("p", {}, "Every process of this gateway takes its config file over, if it is valid. Open streams are not touched."),
    label: "Reload", act: () => ask("POST", "/admin/reload"),
  });
  if (!done) return;
  const changed = done.changed?.length ? `Changed: ${done.changed.join(", ")}.` : "Nothing had changed.";
  const restart = done.needs_restart?.length ? ` Only a restart brings into force: ${done.needs_restart.join(", ")}.` : "";
  toast(changed + restart, restart ? "warn" : "good");
}
