/**
 * Capability x-vmferry-handshake: one frame each way on the main channel, before the stream begins and before other channels are made. Both ends
 * judge the same facts by the same rules, so both know how it ends; each refuses with all reasons. Only who knows that the other end is vmferry
 * says hello (`vmferry migrate` asks both): a QEMU never meets it.
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
import { compareEnds, type EndFacts } from '../fit/index.ts';
import { decodeFacts } from './decode-facts.ts';

/** The source's part. Throws MIGRATION_ENDS_DIFFER, MIGRATION_DEADLINE, MIGRATION_PEER_GONE, WireError, TransportError. */
export async function offerHandshake(channel: Channel, own: EndFacts, settings: SettingsView): Promise<void> {
  await inTime(say(channel, 'hello', own), 'handshake', settings);
  requireFit(own, await inTime(hear(channel, 'answer'), 'handshake', settings));
}

/** The destination's part. Throws as the source's; its answer has left then all the same. */
export async function answerHandshake(channel: Channel, own: EndFacts, settings: SettingsView): Promise<void> {
  const source = await inTime(hear(channel, 'hello'), 'hello', settings);
  await inTime(say(channel, 'answer', own), 'hello', settings);
  requireFit(source, own);
}

function requireFit(source: EndFacts, destination: EndFacts): void {
  const failed = compareEnds(source, destination).filter(({ verdict }) => verdict === 'fail');
  if (failed.length === 0) return;
  const reasons = failed.map(({ rule, reason }) => `${rule}: ${reason}`);
  const message = `the two ends do not fit: ${reasons.join('; ')}`;
  throw new MigrationError({ code: 'MIGRATION_ENDS_DIFFER', reasons }, message);
}

async function say(channel: Channel, kind: HandshakeFrame['kind'], facts: EndFacts): Promise<void> {
  const writer = new Writer(1024);
  encodeHandshake(writer, { kind, body: Buffer.from(JSON.stringify(facts)) });
  await channel.write(Uint8Array.from(writer.bytes()));
}

async function hear(channel: Channel, kind: HandshakeFrame['kind']): Promise<EndFacts> {
  const input = new StreamInput(`${channel.label} (handshake)`, { bytesMax: 2 * HANDSHAKE_BODY_MAX });
  const { reader } = input;
  for (;;) {
    const mark = reader.pos;
    try {
      const { body } = decodeHandshake(reader, kind);
      if (reader.available > 0) throw gone(channel, `said ${reader.available} bytes behind its ${kind}`);
      return decodeFacts(body, reader.stream);
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
