// Made from schemas/json by tests/node/types.mjs; `make docs` writes it anew.

export type JsonValue = unknown;

export interface Records {
  "stillhouse.audit": Audit;
  "stillhouse.drift": Drift;
  "stillhouse.email_draft": EmailDraft;
  "stillhouse.evidence": Evidence;
  "stillhouse.feedback": Feedback;
  "stillhouse.fill_proposal": FillProposal;
  "stillhouse.job_order": JobOrder;
  "stillhouse.preference": Preference;
  "stillhouse.provenance": Provenance;
  "stillhouse.quarantine": Quarantine;
  "stillhouse.rag": Rag;
  "stillhouse.receipt": Receipt;
  "stillhouse.replay": Replay;
  "stillhouse.review": Review;
  "stillhouse.run": Run;
  "stillhouse.scored": Scored;
  "stillhouse.sft": Sft;
  "stillhouse.sms_draft": SmsDraft;
  "stillhouse.verdict": VerdictRecord;
  "stillhouse.worker": Worker;
}
/**
 * `stillhouse.audit`: what an audit looked at and what it found.
 *
 * `vouched`: everything was there and as signed. `partially_vouched`: nothing contradicts, but something
 * could not be checked. `broken`: at least one finding. `checked` counts what was looked at; links are
 * sampled with `seed` unless `sample` is null. `head` and `key_id` are what to keep elsewhere: who holds
 * both can tell a chain that was cut short or rewritten from the whole one.
 */
export interface Audit {
  checked: {
    [k: string]: number;
  };
  ext?: {
    [k: string]: JsonValue;
  };
  findings: AuditFinding[];
  findings_left_out?: number;
  head: Head | null;
  key_id: string | null;
  outcome: "vouched" | "partially_vouched" | "broken";
  sample: number | null;
  schema: "stillhouse.audit";
  schema_version: string;
  seed: number;
  unchecked: Unchecked[];
}
/**
 * Something that is not as it was signed. `line` counts from 1, `offset` is in bytes.
 */
export interface AuditFinding {
  code: string;
  expected?: string | null;
  file: string;
  found?: string | null;
  line?: number | null;
  message: string;
  offset?: number | null;
}
/**
 * The end of the chain, signed apart, so that a receipt taken off the end is missed.
 */
export interface Head {
  count: number;
  last: ReceiptRef;
  signed_at: string;
}
/**
 * A receipt by its file in `distill/receipts/`, and the sha256 of that file.
 */
export interface ReceiptRef {
  file: string;
  sequence: number;
  sha256: string;
}
/**
 * Something that could not be checked, and why.
 */
export interface Unchecked {
  code: string;
  file: string;
  message: string;
}
/**
 * `stillhouse.drift`: two windows compared, what went in apart from what came out.
 *
 * `ts` is the time of the latest evidence in them. `flips` names some of the tasks whose verdict changed.
 */
export interface Drift {
  alpha: number;
  baseline: Window;
  current: Window;
  ext?: {
    [k: string]: JsonValue;
  };
  flips?: Flip[];
  inputs: InputDrift[];
  outputs: OutputDrift[];
  parameters?: {
    [k: string]: JsonValue;
  };
  schema: "stillhouse.drift";
  schema_version: string;
  ts: string;
}
/**
 * The evidence of a time or of a build; `until` is not part of it.
 */
export interface Window {
  count: number;
  evidence_sha256?: string | null;
  name: string;
  since?: string | null;
  until?: string | null;
}
/**
 * A task that is `accepted` now and was not, or the other way; a piece of evidence from each window.
 */
export interface Flip {
  accepted: boolean;
  baseline_evidence_id: string;
  current_evidence_id: string;
}
/**
 * What the work was done with: the share of each value of `property` in both windows, by tasks.
 *
 * `distance` is the share of tasks that would need another value for the windows to be alike.
 */
export interface InputDrift {
  baseline: {
    [k: string]: number;
  };
  current: {
    [k: string]: number;
  };
  distance?: number;
  drifted?: boolean;
  p?: number | null;
  property: "model" | "config" | "prompt" | "roster" | "policy" | "role";
}
/**
 * What came of it. `difference` is current less baseline; `p` is after Holm's correction.
 *
 * `category` and `finding` are the shares of tasks with `key`, `verdict_flip` the share that was accepted
 * of those tasks that are in both windows; `length` (characters), `latency` (milliseconds) and `cost` (US
 * dollars) are medians. `baseline_tasks` and `current_tasks` are what each rests on.
 */
export interface OutputDrift {
  baseline: number | null;
  baseline_tasks?: number;
  current: number | null;
  current_tasks?: number;
  difference: number | null;
  drifted: boolean;
  interval?: [unknown, unknown] | null;
  key?: string | null;
  metric: "verdict_flip" | "category" | "finding" | "length" | "latency" | "cost";
  p?: number | null;
}
export interface EmailDraft {
  body: string;
  cc?: string[] | null;
  from?: string | null;
  headers?: {
    [k: string]: string;
  } | null;
  subject: string;
  to: string[];
}
/**
 * `stillhouse.evidence`: one run with everything known about it, under an id made of its content.
 *
 * `evidence_id` covers source key, task, role, input, output and model, never a time, so the same run has
 * the same id on every machine; verdict and feedback may join later without changing it. `role` is the
 * job role of the retrieved texts, where they agree on one. `repair_of` names the failed attempt that this
 * run was made to repair, `repaired_by` the first run that was made to repair this one. `ts`, `latency_ms`
 * and `config_hash` are the run's own, where its source tells them. `duplicates` counts the records beyond
 * the first that said the same.
 */
export interface Evidence {
  config_hash?: string | null;
  duplicates?: number;
  episode_id?: string | null;
  evidence_id: string;
  ext?: {
    [k: string]: JsonValue;
  };
  feedback?: EvidenceFeedback[];
  input: EvidenceInput;
  latency_ms?: number | null;
  model: ModelRef;
  output?: RunOutput | null;
  repair_of?: string | null;
  repaired_by?: string | null;
  review?: EvidenceReview[];
  role?: string | null;
  schema: "stillhouse.evidence";
  schema_version: string;
  source: Source;
  task?: Task | null;
  ts?: string | null;
  usage?: Usage;
  verdict?: Verdict | null;
}
/**
 * What somebody said afterwards, of this run or of the whole episode.
 */
export interface EvidenceFeedback {
  by: string;
  feedback_id: string;
  kind: "boolean" | "float" | "comment" | "demonstration";
  name?: string | null;
  scope: "run" | "episode";
  ts: string;
  value: JsonValue;
}
/**
 * What was put before the model.
 */
export interface EvidenceInput {
  messages: {
    [k: string]: JsonValue;
  }[];
  params?: {
    [k: string]: JsonValue;
  };
  retrieved_context?: RetrievedText[];
  tools?:
    | {
        [k: string]: JsonValue;
      }[]
    | null;
}
/**
 * A text that was put before the model, with its hash so that it can be found again.
 */
export interface RetrievedText {
  collection: string;
  id: string | number;
  role?: string | null;
  score?: number | null;
  text: string;
  text_sha256: string;
}
export interface ModelRef {
  digest?: string | null;
  name: string;
  provider: string;
}
export interface RunOutput {
  content: string | null;
  finish_reason?: string | null;
  tool_calls?:
    | {
        [k: string]: JsonValue;
      }[]
    | null;
}
/**
 * What a person decided on this piece of evidence, as in `stillhouse.review`.
 */
export interface EvidenceReview {
  by: string;
  correction?: RunOutput | null;
  decision: "accept" | "reject" | "correct";
  note?: string | null;
  review_id: string;
  ts: string;
}
/**
 * Where a record came from, so that anybody can find the line again and check that it is unchanged.
 *
 * `key` is the record's own name in that source (`run_id` for `stillhouse`). `offset` and `length` are bytes
 * of the line in `segment`, its line feed included; `line_sha256` is taken over the same bytes.
 */
export interface Source {
  key: string;
  kind: string;
  length: number;
  line_sha256: string;
  offset: number;
  segment: string;
}
/**
 * What the run was for: the kind of work, and the key of the thing worked on (such as an order id).
 */
export interface Task {
  key?: string | null;
  kind: string;
}
/**
 * Tokens and money. Unknown is null, never zero.
 */
export interface Usage {
  completion_tokens?: number | null;
  cost_usd?: number | null;
  prompt_tokens?: number | null;
}
/**
 * All findings on one artifact, and what they amount to. `ok` is true for `accepted` alone.
 */
export interface Verdict {
  elapsed_ms: number;
  findings: Finding[];
  kind: string;
  ok: boolean;
  roster?: RosterInfo | null;
  validator: ValidatorInfo;
  verdict: "accepted" | "partially_accepted" | "rejected" | "needs_human_review";
}
/**
 * One thing found. Callers branch on `code`; `message` is for people and masks personal data.
 *
 * `path` is an RFC 6901 pointer into the artifact; `span` is `[start, end)` in characters of the text there.
 */
export interface Finding {
  code: string;
  evidence?: {
    [k: string]: JsonValue;
  } | null;
  fix?: {
    [k: string]: JsonValue;
  } | null;
  message: string;
  path: string;
  severity: "error" | "review" | "warning" | "info";
  span?: [unknown, unknown] | null;
}
/**
 * Which roster was looked at.
 */
export interface RosterInfo {
  as_of: string;
  rows: number;
  sha256: string;
}
/**
 * Which rules spoke. `policy_version` names the rule set, so that a verdict can be repeated.
 */
export interface ValidatorInfo {
  name: string;
  policy_version: string;
  version: string;
}
/**
 * `stillhouse.feedback`: what somebody said of a run or an episode afterwards.
 */
export interface Feedback {
  by: string;
  episode_id?: string | null;
  ext?: {
    [k: string]: JsonValue;
  };
  feedback_id: string;
  kind: "boolean" | "float" | "comment" | "demonstration";
  name?: string | null;
  run_id?: string | null;
  schema: "stillhouse.feedback";
  schema_version: string;
  ts: string;
  value: JsonValue;
}
/**
 * Which workers an agent proposes for an order.
 */
export interface FillProposal {
  fills: Fill[];
  order_id: string;
}
export interface Fill {
  name?: string | null;
  worker_id: string;
}
/**
 * What a client asks for. `start` and `end` carry the site's offset; the shift is `[start, end)`.
 */
export interface JobOrder {
  age_min?: number | null;
  city: string;
  client_id: string;
  count: number;
  end: string;
  order_id: string;
  required_certs?: string[];
  role: string;
  start: string;
  state: string;
}
/**
 * `stillhouse.preference`: one prompt, the accepted answer and the rejected draft that it replaced.
 *
 * `reasons` are the codes for which the draft was rejected.
 */
export interface Preference {
  chosen: RunOutput;
  evidence_id: string;
  ext?: {
    [k: string]: JsonValue;
  };
  messages: {
    [k: string]: JsonValue;
  }[];
  reasons: string[];
  rejected: RunOutput;
  rejected_evidence_id: string;
  schema: "stillhouse.preference";
  schema_version: string;
  tools?:
    | {
        [k: string]: JsonValue;
      }[]
    | null;
}
/**
 * `stillhouse.provenance`: what stands behind one exported line. Lies beside the training file.
 *
 * `line` counts from 1. `split` is the file's; rows of one `group` are never in two splits. `input_sha256`
 * is over the canonical form of the prompt, messages and tools, as the model saw it. `rejected` is set for
 * preference pairs alone, as are `reasons`, `margin` and `pair`, which says where the pair comes from: a
 * repair, a correction by a person, or two answers to one prompt. `correction` names the review or feedback
 * that holds the answer, where the row has a person's and not the model's. `masked` counts personal values
 * for which a placeholder stands in the row.
 */
export interface Provenance {
  correction?: string | null;
  duplicates?: Duplicates;
  evidence_id: string;
  ext?: {
    [k: string]: JsonValue;
  };
  group?: string | null;
  input_sha256?: string | null;
  line: number;
  line_sha256: string;
  margin?: number | null;
  masked?: number;
  pair?: ("repair" | "correction" | "feedback") | null;
  reasons?: string[];
  rejected?: EvidenceRef | null;
  schema: "stillhouse.provenance";
  schema_version: string;
  source: Source;
  split?: ("train" | "validation" | "holdout") | null;
}
/**
 * How many further pieces of evidence say the same as a row: `exact` gave the very same row and were left
 * out, `near` are alike but for a few words and the values of their slots, and have rows of their own.
 */
export interface Duplicates {
  exact?: number;
  near?: number;
}
/**
 * A piece of evidence and where it came from.
 */
export interface EvidenceRef {
  evidence_id: string;
  source: Source;
}
/**
 * `stillhouse.quarantine`: a record that was left out, and why. Nothing is left out silently.
 *
 * `reason` is a code, `detail` a sentence without the record's own words. `evidence_id` is null for lines
 * that never became evidence.
 */
export interface Quarantine {
  detail: string;
  evidence_id?: string | null;
  ext?: {
    [k: string]: JsonValue;
  };
  reason: string;
  schema: "stillhouse.quarantine";
  schema_version: string;
  source: Source;
}
/**
 * `stillhouse.rag`: an accepted answer, to be retrieved as a worked example.
 *
 * `query` is what was asked (the last user message of the original prompt), `text` the answer.
 */
export interface Rag {
  evidence_id: string;
  ext?: {
    [k: string]: JsonValue;
  };
  query: string;
  role?: string | null;
  schema: "stillhouse.rag";
  schema_version: string;
  task?: Task | null;
  text: string;
}
/**
 * `stillhouse.receipt`: one run of a stage, the predicate of a signed in-toto statement.
 *
 * `counts["in"]` is the sum of all other counts: every input ended in exactly one outcome. `products` are
 * the files that stand after the run, named by their path below the data folder, and the subjects of the
 * statement; `products_merkle_root` is the RFC 6962 tree over their canonical form, in the order of names.
 * `prev_receipt_sha256` is over the file of the receipt before this one; only the first has none.
 */
export interface Receipt {
  config: {
    [k: string]: JsonValue;
  };
  config_hash: string;
  counts: {
    [k: string]: number;
  };
  ext?: {
    [k: string]: JsonValue;
  };
  finished_at: string;
  materials: Material[];
  policy_version?: string | null;
  prev_receipt_sha256?: string | null;
  products: ProductFile[];
  products_merkle_root: string;
  schema: "stillhouse.receipt";
  schema_version: string;
  schema_versions: {
    [k: string]: string;
  };
  seed?: number | null;
  sequence: number;
  stage: string;
  started_at: string;
  tool: Tool;
}
/**
 * Bytes that a stage read: from `first_offset` up to `last_offset`, of a file that may have grown since.
 *
 * `uri` is the path below the data folder, or an absolute one for a file that lies elsewhere. `sha256`,
 * `bytes` and `lines` are of these bytes alone.
 */
export interface Material {
  bytes: number;
  first_offset?: number;
  last_offset: number;
  lines: number;
  sha256: string;
  uri: string;
}
/**
 * A finished file. `sha256` is over its bytes.
 */
export interface ProductFile {
  bytes: number;
  lines: number;
  name: string;
  sha256: string;
}
/**
 * The code that ran. `code_sha256` covers every source file that takes part in a stage.
 */
export interface Tool {
  code_sha256: string;
  name: string;
  packages: {
    [k: string]: string;
  };
  python: string;
  version: string;
}
/**
 * `stillhouse.replay`: a recorded task that was run again, with every attempt in its order.
 *
 * `evidence_id` is the recording; `group` what it belongs to, from which nothing was retrieved; `work` the
 * same without near duplicates, that is what shares an order, an episode or a prompt with it; `context`
 * the evidence that was. `config_hash` covers what shaped the replay: models, prompts, roster, policy.
 * `arm` names the configuration, `repeat` counts from 0. `text` and `findings` are of the last answer. In
 * the mode `recorded`, nothing was asked again: the recorded answers were validated anew.
 */
export interface Replay {
  arm?: string;
  /**
   * @minItems 1
   */
  attempts: [ReplayAttempt, ...ReplayAttempt[]];
  config_hash: string;
  context?: string[];
  episode_id: string;
  evidence_id: string;
  ext?: {
    [k: string]: JsonValue;
  };
  findings?: Finding[];
  group: string;
  mode: "live" | "cassette" | "refresh" | "recorded";
  outcome: "local_pass" | "local_repaired" | "escalated_pass" | "failed";
  repeat?: number;
  replay_id: string;
  role?: string | null;
  schema: "stillhouse.replay";
  schema_version: string;
  task?: Task | null;
  text?: string | null;
  ts: string;
  usage?: Usage2;
  work?: string | null;
}
/**
 * One run of the replay; `codes` are the findings that it was refused for.
 */
export interface ReplayAttempt {
  codes?: string[];
  latency_ms?: number | null;
  model: ModelRef;
  run_id: string;
  usage?: Usage1;
  verdict?: ("accepted" | "partially_accepted" | "rejected" | "needs_human_review") | null;
}
/**
 * Tokens and money. Unknown is null, never zero.
 */
export interface Usage1 {
  completion_tokens?: number | null;
  cost_usd?: number | null;
  prompt_tokens?: number | null;
}
/**
 * Tokens and money. Unknown is null, never zero.
 */
export interface Usage2 {
  completion_tokens?: number | null;
  cost_usd?: number | null;
  prompt_tokens?: number | null;
}
/**
 * One decision of one reviewer. Decisions are added, never changed; each reviewer's latest one counts.
 *
 * `correction` is the answer as it should have been; it comes with `correct` and with nothing else.
 */
export interface Review {
  by: string;
  correction?: RunOutput | null;
  decision: "accept" | "reject" | "correct";
  evidence_id: string;
  ext?: {
    [k: string]: JsonValue;
  };
  note?: string | null;
  review_id: string;
  schema: "stillhouse.review";
  schema_version: string;
  ts: string;
}
/**
 * One model call. `output` is null when nothing came back; `attempts` say why.
 */
export interface Run {
  attempts?: Attempt[];
  config_hash?: string | null;
  episode_id?: string | null;
  ext?: {
    [k: string]: JsonValue;
  };
  latency_ms?: number | null;
  model: ModelRef;
  output?: RunOutput | null;
  principal?: string | null;
  request: RunRequest;
  retrieved_context?: RetrievedText[];
  run_id: string;
  schema: "stillhouse.run";
  schema_version: string;
  task?: Task | null;
  ts: string;
  ttft_ms?: number | null;
  usage?: Usage3;
  verdict?: Verdict | null;
}
/**
 * One try at one candidate, failed ones included.
 */
export interface Attempt {
  code?: string | null;
  latency_ms: number;
  model: string;
  provider: string;
  status: "ok" | "failed" | "aborted";
}
export interface RunRequest {
  messages: {
    [k: string]: JsonValue;
  }[];
  params?: {
    [k: string]: JsonValue;
  };
  tools?:
    | {
        [k: string]: JsonValue;
      }[]
    | null;
}
/**
 * Tokens and money. Unknown is null, never zero.
 */
export interface Usage3 {
  completion_tokens?: number | null;
  cost_usd?: number | null;
  prompt_tokens?: number | null;
}
/**
 * `stillhouse.scored`: the category of one piece of evidence, with the codes of the reasons.
 */
export interface Scored {
  category: "accepted" | "partially_accepted" | "rejected" | "needs_human_review";
  evidence_id: string;
  ext?: {
    [k: string]: JsonValue;
  };
  policy_version: string;
  reasons: string[];
  schema: "stillhouse.scored";
  schema_version: string;
  scorer_version: string;
}
/**
 * `stillhouse.sft`: a prompt and the accepted answer to it, before a target's form is chosen.
 */
export interface Sft {
  answer: RunOutput;
  evidence_id: string;
  ext?: {
    [k: string]: JsonValue;
  };
  messages: {
    [k: string]: JsonValue;
  }[];
  schema: "stillhouse.sft";
  schema_version: string;
  tools?:
    | {
        [k: string]: JsonValue;
      }[]
    | null;
}
export interface SmsDraft {
  body: string;
  to: string;
}
/**
 * `stillhouse.verdict`: a verdict that reached us apart from its run.
 */
export interface VerdictRecord {
  ext?: {
    [k: string]: JsonValue;
  };
  run_id: string;
  schema: "stillhouse.verdict";
  schema_version: string;
  ts: string;
  verdict: Verdict;
}
/**
 * A row of the roster.
 */
export interface Worker {
  assignments: Assignment[];
  blocked_clients: string[];
  certs: Certificate[];
  city: string;
  date_of_birth: string;
  email: string;
  first_name: string;
  last_name: string;
  phone: string;
  roles: string[];
  state: string;
  status: "active" | "inactive" | "do_not_place";
  worker_id: string;
  zip: string;
}
export interface Assignment {
  end: string;
  order_id: string;
  start: string;
}
export interface Certificate {
  code: string;
  expires: string;
}
