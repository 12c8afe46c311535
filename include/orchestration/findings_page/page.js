"use strict";

// Text that providers wrote reaches the page only as textContent: it can never become markup.

// Where Airflow's own UI and API lie, seen from this page.
const AIRFLOW = new URL("../../", document.baseURI);
const DAG = new URL("api/v2/dags/resolve_findings", AIRFLOW);
const POLL_MILLISECONDS = 1500;
const ENDED = ["success", "failed"];

function element(name, { textContent, ...properties } = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  const content = textContent === undefined ? children : [textContent];
  made.append(...content.map((one) => (typeof one === "string" ? visible(one) : one)));
  return made;
}

// Characters that cannot be seen can reverse or hide the text around them: their codes are shown.
function visible(text) {
  const code = (character) => `\\u{${character.codePointAt(0).toString(16)}}`;
  return text.replace(/\p{Cf}|(?![\n\t])\p{Cc}/gu, code);
}

function moment(text) {
  return text ? `${text.slice(0, 16).replace("T", " ")} UTC` : "";
}

async function ask(url, options = {}) {
  const answer = await fetch(url, { credentials: "same-origin", ...options });
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  throw new Error(refusal(answer.status, content.detail, options.method === "POST"));
}

function refusal(status, detail, isDecision) {
  if (status === 401) return "You are no longer logged in. Load Airflow again and log in.";
  if (status === 403) {
    return isDecision
      ? "Your role may look at findings but not decide. Ask somebody who may trigger DAGs."
      : "Your role may not see findings. Ask an administrator of Airflow.";
  }
  const told = typeof detail === "string" ? detail : JSON.stringify(detail ?? "");
  return `Airflow answered ${status}: ${told}`;
}

function field(label, name, kind, properties) {
  const input = element(kind, { name, ...properties });
  return element("label", { className: "field" }, label, input);
}

function choices(finding) {
  const made = Object.entries(finding.decisions).map(([decision, effect]) =>
    element(
      "label",
      { className: "choice" },
      element("input", { type: "radio", name: "decision", value: decision, required: true }),
      element("span", {}, element("strong", { textContent: decision }), ` – ${effect}`),
    ),
  );
  return element("fieldset", {}, element("legend", { textContent: "Decision" }), ...made);
}

const isAboutPayouts = (finding) => finding.held?.what === "payouts";

// What the finding held when it was shown.
function held(finding) {
  const { what, count, amounts } = finding.held;
  const sums = Object.entries(amounts).map(([currency, amount]) => `${amount} ${currency}`);
  return [`${count} ${count === 1 ? what.slice(0, -1) : what}`, ...sums].join(" · ");
}

// The fields that only some decisions ask for.
function needs(finding, decision) {
  return {
    transaction_ids: isAboutPayouts(finding),
    reference: decision === "processed",
    record_id: decision === "choose_version",
    continue_from:
      ["skip_page", "move_cursor"].includes(decision) ||
      (finding.kind === "gap" && decision === "try_again"),
  };
}

// The contents that contradict each other, one of which is to be chosen.
function versionChoices(finding) {
  const { versions } = finding.detail;
  if (!Array.isArray(versions)) {
    return field("Record whose version counts", "record_id", "input", { type: "number", min: 1 });
  }
  const made = versions.map(({ record_id: record, ...content }) => {
    const told = Object.entries(content).filter(([, value]) => value !== null);
    return element(
      "label",
      { className: "choice" },
      element("input", { type: "radio", name: "record_id", value: record }),
      element(
        "span",
        {},
        element("strong", { textContent: `record ${record}` }),
        ` – ${told.map(([name, value]) => `${name} ${value}`).join(" · ")}`,
      ),
    );
  });
  return element("fieldset", {}, element("legend", { textContent: "Version that counts" }), ...made);
}

function decisionForm(finding) {
  const record = versionChoices(finding);
  const continued = field(
    "Go on after the entry with this id (may stay empty, but for move_cursor)",
    "continue_from",
    "input",
    { type: "text", maxLength: 500 },
  );
  const payouts = field(
    isAboutPayouts(finding)
      ? `Only these payouts: their transactionIds, one a line (empty for all: ${held(finding)})`
      : "",
    "transaction_ids",
    "textarea",
    { rows: 2 },
  );
  const reference = field("", "reference", "input", { type: "text", maxLength: 500 });
  const outcome = element("p", { className: "outcome", hidden: true });
  outcome.setAttribute("role", "status");
  const form = element(
    "form",
    {},
    choices(finding),
    record,
    continued,
    payouts,
    field("Reason, kept for ever", "reason", "textarea", {
      rows: 2,
      required: true,
      minLength: 5,
      maxLength: 2000,
    }),
    reference,
    element("button", { textContent: `Decide finding ${finding.finding_id}` }),
    outcome,
  );
  const fit = () => {
    const decision = new FormData(form).get("decision");
    const needed = needs(finding, decision);
    record.hidden = !needed.record_id;
    for (const input of record.querySelectorAll("input")) input.required = needed.record_id;
    continued.hidden = !needed.continue_from;
    continued.lastElementChild.required = decision === "move_cursor";
    payouts.hidden = !needed.transaction_ids;
    reference.firstChild.data = needed.reference
      ? "Reference: the partner's confirmation (required)"
      : "Reference: a ticket or mail (may stay empty)";
    reference.lastElementChild.required = needed.reference;
  };
  form.addEventListener("change", fit);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    decide(finding, form, outcome);
  });
  fit();
  return form;
}

// One a line, as an id may hold anything else.
const lines = (text) => text.split(/\r?\n/).filter((line) => line.trim() !== "");

function conf(finding, form) {
  const given = new FormData(form);
  const needed = needs(finding, given.get("decision"));
  const filled = {
    finding_ids: [finding.finding_id],
    decision: given.get("decision"),
    reason: given.get("reason"),
  };
  if (given.get("reference")) filled.reference = given.get("reference");
  if (needed.record_id) filled.record_id = Number(given.get("record_id"));
  if (needed.continue_from && given.get("continue_from")) {
    filled.continue_from = given.get("continue_from");
  }
  const named = needed.transaction_ids ? lines(given.get("transaction_ids")) : [];
  if (named.length > 0) filled.transaction_ids = named;
  else if (finding.seen !== null) filled.seen = finding.seen;
  return filled;
}

async function decide(finding, form, outcome) {
  const button = form.querySelector("button");
  button.disabled = true;
  document.getElementById("decided-now").hidden = true;
  outcome.hidden = false;
  outcome.textContent = "Asking Airflow to run resolve_findings …";
  try {
    const run = await ask(`${DAG}/dagRuns`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ logical_date: null, conf: conf(finding, form) }),
    });
    await follow(finding, run, outcome, button);
  } catch (error) {
    outcome.textContent = `Nothing was decided. ${error.message}`;
    button.disabled = false;
  }
}

async function follow(finding, run, outcome, button) {
  const link = runLink(run.dag_run_id);
  let state = run.state;
  while (!ENDED.includes(state)) {
    outcome.replaceChildren(`resolve_findings is ${state}: `, link);
    await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
    try {
      state = (await ask(`${DAG}/dagRuns/${encodeURIComponent(run.dag_run_id)}`)).state;
    } catch (error) {
      outcome.replaceChildren(`The run was started. ${error.message} See `, link);
      return;
    }
  }
  if (state === "success") {
    const told = document.getElementById("decided-now");
    told.replaceChildren(
      `The decision on finding ${finding.finding_id} is recorded. What takes it up, and when, says `,
      link,
    );
    told.hidden = false;
    // If it is still open, it is shown anew, with what is left of it.
    button.closest("article").remove();
    await load();
  } else {
    outcome.replaceChildren(
      "The decision was refused or failed; the log says why: ",
      link,
      ". “Load again” shows how the finding stands now.",
    );
    button.form.dataset.refused = "";
    button.disabled = false;
  }
}

// Airflow frames this page and lets no link leave the frame, but its router follows the address.
function runLink(runId) {
  const url = new URL(
    `dags/resolve_findings/runs/${encodeURIComponent(runId)}/tasks/resolve`,
    AIRFLOW,
  );
  const link = element("a", { href: url.href, textContent: `run ${runId}` });
  link.addEventListener("click", (event) => {
    if (window.parent === window) return;
    event.preventDefault();
    window.parent.history.pushState(null, "", url);
    window.parent.dispatchEvent(new PopStateEvent("popstate", { state: null }));
  });
  return link;
}

function seenAgain(finding) {
  if (finding.times_seen === 1) return "";
  return ` · seen ${finding.times_seen} times, last ${moment(finding.last_seen_at)}`;
}

function card(finding) {
  const facts = element(
    "p",
    { className: "facts" },
    element("strong", { textContent: finding.severity }),
    ` · ${finding.kind} · ${finding.source} · ${finding.subject}` +
      ` · since ${moment(finding.opened_at)}${seenAgain(finding)}`,
  );
  const detail = element("pre", { textContent: JSON.stringify(finding.detail, null, 2) });
  const made = element(
    "article",
    { className: finding.severity },
    element("h3", { textContent: `${finding.finding_id}: ${finding.summary}` }),
    facts,
    ...(finding.held === null
      ? []
      : [
          element("p", {
            className: "held",
            textContent: `Held now: ${held(finding)} (seen: ${finding.seen})`,
          }),
        ]),
    element("p", { textContent: finding.kept }),
    element("p", { className: "meaning", textContent: finding.meaning }),
    element("details", {}, element("summary", { textContent: "Details" }), detail),
    element(
      "details",
      {},
      element("summary", { className: "decide", textContent: "Decide" }),
      decisionForm(finding),
    ),
  );
  made.dataset.finding = finding.finding_id;
  return made;
}

function decisionCard(decided) {
  const why = decided.reason + (decided.reference ? ` (${decided.reference})` : "");
  const named = decided.transaction_ids;
  const about = named ? ` · only ${named.length} of its payouts: ${named.slice(0, 10).join(", ")}` : "";
  const waits = decided.awaits_second_person
    ? " · nothing has changed: another person has to decide the same"
    : "";
  return element(
    "article",
    {},
    element("h3", { textContent: `${decided.finding_id}: ${decided.summary}` }),
    element(
      "p",
      { className: "facts" },
      element("strong", { textContent: decided.decision }),
      ` · ${decided.decided_by} · ${moment(decided.decided_at)}${about}${waits}`,
    ),
    element("p", { textContent: why }),
  );
}

function show(listing) {
  const shown = listing.findings.length;
  const status = document.getElementById("status");
  status.textContent =
    listing.open_count === 0
      ? "None is open."
      : `${listing.open_count} open` +
        (shown < listing.open_count ? `; the ${shown} most urgent are shown.` : ".");
  const cards = document.getElementById("findings");
  // A form that somebody is filling in stays as it is, until it was refused.
  const kept = new Map();
  for (const old of cards.children) {
    const isFilledIn = old.querySelector("details[open] form:not([data-refused])");
    if (isFilledIn) kept.set(old.dataset.finding, old);
  }
  cards.replaceChildren(
    ...listing.findings.map((one) => kept.get(String(one.finding_id)) ?? card(one)),
  );
  document.getElementById("decisions").replaceChildren(...listing.decisions.map(decisionCard));
  document.getElementById("decided").hidden = listing.decisions.length === 0;
}

function notice(text) {
  const place = document.getElementById("notice");
  place.textContent = text;
  place.hidden = text === "";
}

async function load() {
  try {
    show(await ask("open"));
    const dag = await ask(DAG);
    notice(
      dag.is_paused
        ? "The DAG resolve_findings is paused: decisions wait, without a word, until it is unpaused."
        : "",
    );
  } catch (error) {
    notice(error.message);
    document.getElementById("status").textContent = "";
  }
}

function takeColours() {
  const around = window.parent.document.documentElement.classList;
  for (const name of ["light", "dark"]) {
    document.documentElement.classList.toggle(name, around.contains(name));
  }
}

takeColours();
document.getElementById("reload").addEventListener("click", load);
load();
