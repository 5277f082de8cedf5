/**
 * Capability x-vmferry-handshake: one frame each way on the main channel, before the stream begins and before other channels are made. Each tells what
 * it has; the destination settles what differs, in its answer, and both judge the rest by the same rules; each refuses with all reasons. Only who
 * knows that the other end is vmferry says hello (`vmferry migrate` asks both): a QEMU never meets it.
 */
import { asError, FerryError, STARVED, Writer } from '../../base/index.ts';
import type { SettingsView } from '../../settings/index.ts';
import type { Channel } from '../../transport/index.ts';
import {
  decodeHandshake,
  encodeHandshake,
  HANDSHAKE_BODY_MAX,
  type HandshakeFrame,
  StreamInput,
} from '../../wire/index.ts';
import { inTime } from '../deadline.ts';
import { MigrationError } from '../errors.ts';
import { acceptSettled, compareEnds, type EndFacts, type Finding, settle, settles } from '../fit/index.ts';
import { type Agreement, agreementOf } from './agreement.ts';
import { decodeSaid, type Said } from './decode-facts.ts';

/** The source's part. Throws MIGRATION_ENDS_DIFFER, MIGRATION_DEADLINE, MIGRATION_PEER_GONE, WireError, TransportError. */
export async function offerHandshake(channel: Channel, own: EndFacts, settings: SettingsView): Promise<Agreement> {
  await inTime(say(channel, 'hello', { facts: own }), 'handshake', settings);
  const { facts: peer, settled: told = {} } = await inTime(hear(channel, 'answer'), 'handshake', settings);
  const { settled, refused } = acceptSettled(own, peer, settles(peer) ? told : {});
  const warnings = requireFit(compareEnds(own, peer, settled), refused);
  return agreementOf({ source: own, destination: peer, peer }, settled, warnings);
}

/** The destination's part. Throws as the source's; its answer has left then all the same. */
export async function answerHandshake(channel: Channel, own: EndFacts, settings: SettingsView): Promise<Agreement> {
  const { facts: peer } = await inTime(hear(channel, 'hello'), 'hello', settings);
  const settled = settle(peer, own);
  const told = Object.fromEntries(settled.map(({ name, value }) => [name, value]));
  await inTime(say(channel, 'answer', { facts: own, settled: told }), 'hello', settings);
  const warnings = requireFit(compareEnds(peer, own, settled), []);
  return agreementOf({ source: peer, destination: own, peer }, settled, warnings);
}

/** Returns what is no reason to refuse. */
function requireFit(findings: readonly Finding[], refused: readonly string[]): readonly string[] {
  const reasonsOf = (verdict: Finding['verdict']) =>
    findings.filter((one) => one.verdict === verdict).map(({ rule, reason }) => `${rule}: ${reason}`);
  const reasons = [...refused, ...reasonsOf('fail')];
  if (reasons.length === 0) return reasonsOf('warn');
  const message = `the two ends do not fit: ${reasons.join('; ')}`;
  throw new MigrationError({ code: 'MIGRATION_ENDS_DIFFER', reasons }, message);
}

async function say(channel: Channel, kind: HandshakeFrame['kind'], { facts, settled }: Said): Promise<void> {
  const writer = new Writer(1024);
  encodeHandshake(writer, { kind, body: Buffer.from(JSON.stringify({ ...facts, settled })) });
  await channel.write(Uint8Array.from(writer.bytes()));
}

async function hear(channel: Channel, kind: HandshakeFrame['kind']): Promise<Said> {
  const input = new StreamInput(`${channel.label} (handshake)`, { bytesMax: 2 * HANDSHAKE_BODY_MAX });
  const { reader } = input;
  for (;;) {
    const mark = reader.pos;
    try {
      const { body } = decodeHandshake(reader, kind);
      if (reader.available > 0) throw gone(channel, `said ${reader.available} bytes behind its ${kind}`);
      return decodeSaid(body, reader.stream);
    } catch (thrown) {
      if (thrown !== STARVED) throw named(asError(thrown), kind);
      reader.pos = mark;
    }
    input.release();
    const chunk = await channel.read();
    if (chunk === null) throw gone(channel, `closed the connection instead of its ${kind}`);
    input.add(chunk);
  }
}

/** Whoever begins with something else has not been told to shake hands. */
function named(error: Error, kind: HandshakeFrame['kind']): Error {
  const isOther = error instanceof FerryError && error.code === 'WIRE_UNEXPECTED_VALUE' && /magic/.test(error.message);
  if (!isOther) return error;
  const fault = { code: 'MIGRATION_MISMATCH', what: 'x-vmferry-handshake', expected: kind, found: 'none' } as const;
  return new MigrationError(fault, 'the other end sends no handshake: x-vmferry-handshake is on here only', error);
}

function gone(channel: Channel, what: string): MigrationError {
  const message = `${channel.label}: the other end ${what}: is it vmferry, and x-vmferry-handshake on there?`;
  return new MigrationError({ code: 'MIGRATION_PEER_GONE', phase: 'handshake' }, message);
}
