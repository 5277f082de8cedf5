/** What a QMP peer says: one JSON object a line. */
import type { QmpEvent, QmpGreeting } from './qmp-commands.ts';

/** Longest line believed, bytes: query-qmp-schema of QEMU 11.1 is a third of a megabyte. */
const LINE_BYTES_MAX = 32 * 1024 * 1024;
const NEWLINE = 0x0a;

export type QmpMessage =
  | { readonly kind: 'greeting'; readonly greeting: QmpGreeting }
  | { readonly kind: 'event'; readonly event: QmpEvent }
  | {
      readonly kind: 'reply';
      readonly id: unknown;
      /** Undefined: the command has succeeded. */
      readonly error: { readonly class: string; readonly desc: string } | undefined;
      readonly returned: unknown;
      /** For messages. */
      readonly line: string;
    }
  /** Nothing behind it means anything. */
  | { readonly kind: 'malformed'; readonly why: string; readonly cause?: unknown };

/** Takes bytes as they come, in pieces of any size. */
export class QmpMessages {
  #partial: Buffer[] = [];
  #partialBytes = 0;

  push(bytes: Buffer): readonly QmpMessage[] {
    const messages: QmpMessage[] = [];
    let from = 0;
    for (let at = bytes.indexOf(NEWLINE); at !== -1; at = bytes.indexOf(NEWLINE, from)) {
      const line = Buffer.concat([...this.#partial, bytes.subarray(from, at)]).toString();
      this.#partial = [];
      this.#partialBytes = 0;
      from = at + 1;
      if (line.trim() !== '') messages.push(messageOf(line));
    }
    if (from === bytes.length) return messages;
    this.#partial.push(bytes.subarray(from));
    this.#partialBytes += bytes.length - from;
    if (this.#partialBytes > LINE_BYTES_MAX) {
      messages.push({ kind: 'malformed', why: `line longer than ${LINE_BYTES_MAX} bytes` });
    }
    return messages;
  }
}

function messageOf(line: string): QmpMessage {
  let message: unknown;
  try {
    message = JSON.parse(line);
  } catch (cause) {
    return { kind: 'malformed', why: `not JSON: ${line.slice(0, 80)}`, cause };
  }
  if (!isRecord(message)) return { kind: 'malformed', why: `not an object: ${line.slice(0, 80)}` };
  const { QMP, event, id, error, return: returned } = message;
  if (isRecord(QMP)) return { kind: 'greeting', greeting: QMP as unknown as QmpGreeting };
  if (typeof event === 'string') return { kind: 'event', event: eventOf(event, message) };
  const failure = isRecord(error) ? { class: String(error['class']), desc: String(error['desc']) } : undefined;
  return { kind: 'reply', id, error: failure, returned, line };
}

function eventOf(event: string, { timestamp, data }: Record<string, unknown>): QmpEvent {
  const stamp = isRecord(timestamp) ? timestamp : {};
  const timestampUs = Number(stamp['seconds'] ?? 0) * 1e6 + Number(stamp['microseconds'] ?? 0);
  return { event, data: isRecord(data) ? data : {}, timestampUs };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
