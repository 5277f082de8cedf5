/**
 * ```
 * 08   u16 number, u16 payload length, payload
 * ```
 * PACKAGED is followed by as many bytes as its payload says; they are elements of their own and not part of the payload.
 * @spec qemu migration/savevm.c qemu_savevm_command_send, loadvm_process_command
 */
import type { Reader, Writer } from '../../base/index.ts';
import { unreachable } from '../../base/index.ts';
import { unexpected, unsupported } from '../errors.ts';
import { expectValue, nameField, u64Number } from '../fields.ts';
import type { Command } from './events.ts';
import { ELEMENT } from './section.ts';

interface CommandFacts {
  readonly number: number;
  /** Legal payload lengths in bytes; undefined = variable. */
  readonly payload: readonly number[] | undefined;
  /** First QEMU version that knows it. */
  readonly since: string;
}

export const COMMANDS = {
  OPEN_RETURN_PATH: { number: 1, payload: [0], since: '2.5' },
  PING: { number: 2, payload: [4], since: '2.5' },
  POSTCOPY_ADVISE: { number: 3, payload: [0, 16], since: '2.5' },
  POSTCOPY_LISTEN: { number: 4, payload: [0], since: '2.5' },
  POSTCOPY_RUN: { number: 5, payload: [0], since: '2.5' },
  POSTCOPY_RAM_DISCARD: { number: 6, payload: undefined, since: '2.5' },
  PACKAGED: { number: 7, payload: [4], since: '2.5' },
  ENABLE_COLO: { number: 8, payload: [0], since: '3.1' },
  POSTCOPY_RESUME: { number: 9, payload: [0], since: '3.0' },
  RECV_BITMAP: { number: 10, payload: undefined, since: '3.0' },
  SWITCHOVER_START: { number: 11, payload: [0], since: '10.0' },
} as const satisfies Record<Command['name'], CommandFacts>;

const BY_NUMBER = new Map<number, readonly [Command['name'], CommandFacts]>(
  Object.entries(COMMANDS).map(([name, facts]) => [facts.number, [name as Command['name'], facts]]),
);

/** Ranges in one POSTCOPY_RAM_DISCARD as QEMU sends it; more are accepted as the u16 length allows. */
export const DISCARD_RANGES_PER_COMMAND = 12;
const DISCARD_VERSION = 0;
const DISCARD_RANGE_BYTES = 16;

/** True if `number` names a command and `length` is a payload length it can have. */
export function isCommand(number: number, length: number): boolean {
  const facts = BY_NUMBER.get(number)?.[1];
  return facts !== undefined && (facts.payload === undefined || facts.payload.includes(length));
}

/** For PACKAGED the caller writes the `length` bytes itself, after this. */
export function encodeCommand(writer: Writer, command: Command): void {
  writer.u8(ELEMENT.COMMAND).u16(COMMANDS[command.name].number);
  switch (command.name) {
    case 'PING':
      writer.u16(4).u32(command.value);
      return;
    case 'POSTCOPY_ADVISE':
      if (command.pageSizes === undefined) writer.u16(0);
      else writer.u16(16).u64(command.pageSizes.summary).u64(command.pageSizes.target);
      return;
    case 'POSTCOPY_RAM_DISCARD':
      writer.u16(3 + command.block.length + DISCARD_RANGE_BYTES * command.ranges.length);
      writer.u8(DISCARD_VERSION).cstr(command.block).u8(0);
      for (const range of command.ranges) writer.u64(range.start).u64(range.length);
      return;
    case 'PACKAGED':
      writer.u16(4).u32(command.length);
      return;
    case 'RECV_BITMAP':
      writer.u16(1 + command.block.length).cstr(command.block);
      return;
    case 'OPEN_RETURN_PATH':
    case 'POSTCOPY_LISTEN':
    case 'POSTCOPY_RUN':
    case 'ENABLE_COLO':
    case 'POSTCOPY_RESUME':
    case 'SWITCHOVER_START':
      writer.u16(0);
      return;
    default:
      unreachable(command);
  }
}

export function decodeCommand(reader: Reader): Command {
  const at = reader.offset;
  expectValue(reader, at, 'command', 'element type', ELEMENT.COMMAND, reader.u8());
  const number = reader.u16();
  const length = reader.u16();
  const known = BY_NUMBER.get(number);
  if (known === undefined) {
    throw unsupported(reader, at + 1, 'command', 'a command of this number', String(number));
  }
  const [name, facts] = known;
  const path = `command ${name}`;
  if (facts.payload !== undefined && !facts.payload.includes(length)) {
    throw unexpected(reader, at + 3, path, 'payload length', facts.payload.join(' or '), length);
  }
  reader.need(length);
  switch (name) {
    case 'PING':
      return { name, value: reader.u32() };
    case 'POSTCOPY_ADVISE':
      return { name, pageSizes: length === 0 ? undefined : { summary: reader.u64(), target: reader.u64() } };
    case 'POSTCOPY_RAM_DISCARD':
      return decodeDiscard(reader, path, length);
    case 'PACKAGED':
      return { name, length: reader.u32() };
    case 'RECV_BITMAP':
      return decodeRecvBitmap(reader, path, length);
    case 'OPEN_RETURN_PATH':
    case 'POSTCOPY_LISTEN':
    case 'POSTCOPY_RUN':
    case 'ENABLE_COLO':
    case 'POSTCOPY_RESUME':
    case 'SWITCHOVER_START':
      return { name };
    default:
      return unreachable(name);
  }
}

/** u8 version 0, cstr block, u8 0, then at least one pair of u64 start, u64 length (bytes). */
function decodeDiscard(reader: Reader, path: string, length: number): Command {
  const start = reader.offset;
  if (length < 3) throw unexpected(reader, start, path, 'payload length', 'at least 20', length);
  expectValue(reader, start, path, 'version', DISCARD_VERSION, reader.u8());
  checkNameFits(reader, path, length - 2);
  const block = nameField(reader, path, 'block');
  expectValue(reader, reader.offset, path, 'end of the block name', 0, reader.u8());
  const rest = start + length - reader.offset;
  if (rest === 0 || rest % DISCARD_RANGE_BYTES !== 0) {
    throw unexpected(reader, reader.offset, path, 'bytes of ranges', 'a multiple of 16, not 0', rest);
  }
  const ranges: { start: number; length: number }[] = [];
  for (let left = rest; left > 0; left -= DISCARD_RANGE_BYTES) {
    const at = reader.offset;
    const range = { start: u64Number(reader, path, 'start'), length: u64Number(reader, path, 'length') };
    if (range.length === 0) throw unexpected(reader, at + 8, path, 'length', 'more than 0', 0);
    ranges.push(range);
  }
  return { name: 'POSTCOPY_RAM_DISCARD', block, ranges };
}

function decodeRecvBitmap(reader: Reader, path: string, length: number): Command {
  if (length === 0) throw unexpected(reader, reader.offset, path, 'payload length', 'at least 2', 0);
  checkNameFits(reader, path, length - 1);
  const start = reader.offset;
  const block = nameField(reader, path, 'block');
  if (reader.offset - start !== length) {
    throw unexpected(reader, start - 2, path, 'payload length', String(reader.offset - start), length);
  }
  return { name: 'RECV_BITMAP', block };
}

/** A name may not reach past the payload it stands in: `bytesMax` are left for it after its own length byte. */
function checkNameFits(reader: Reader, path: string, bytesMax: number): void {
  const length = reader.peekU8();
  if (length > bytesMax) {
    throw unexpected(reader, reader.offset, path, 'length of the block name', `at most ${bytesMax}`, length);
  }
}
