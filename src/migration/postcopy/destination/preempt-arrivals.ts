/** The preempt channels of one connection. */
import { Reader } from '../../../base/index.ts';
import type { SettingsView } from '../../../settings/index.ts';
import type { Channel, Connection } from '../../../transport/index.ts';
import { decodePreemptInitial, PREEMPT_INITIAL_BYTES, PREEMPT_MAGIC } from '../../../wire/index.ts';
import { firstBytesOf, type SourceListener, UNKNOWN_MAX } from '../../destination/arrivals.ts';
import { mismatch } from '../../errors.ts';

/**
 * Waits for `count` preempt channels, by id. A single one is whoever comes next: it says nothing of itself, as QEMU has it. Several come in any order
 * and say by their first bytes which they are, which each still has to read; who says anything else is turned away. It ends with the listener. Throws
 * TransportError; WireError, MIGRATION_MISMATCH if a channel is not one of those that were agreed on: then all are given up.
 */
export async function acceptPreempt(
  listener: SourceListener,
  count: number,
  settings: SettingsView,
  signal: AbortSignal,
): Promise<readonly Channel[]> {
  if (count === 1) return [(await listener.next(signal)).channel('preempt')];
  const arrived = new Map<number, Connection>();
  const unknown = new Set<Connection>();
  let over = false;
  try {
    await new Promise<void>((resolve, reject) => {
      const look = async (connection: Connection) => {
        if (over || unknown.size >= count + UNKNOWN_MAX) return connection.destroy();
        unknown.add(connection);
        const bytes = await firstBytesOf(connection, isEnough, settings);
        unknown.delete(connection);
        if (over || !isPreempt(bytes)) return connection.destroy();
        const reader = new Reader(bytes, `preempt ${connection.address}`, { final: true });
        try {
          const id = decodePreemptInitial(reader, count);
          if (arrived.has(id)) throw mismatch(`preempt ${id}`, 'one channel of that id', 'a second one');
          arrived.set(id, connection);
        } catch (error) {
          connection.destroy();
          throw error;
        }
        if (arrived.size === count) resolve();
      };
      const accept = async () => {
        for (;;) look(await listener.next(signal)).catch(reject);
      };
      accept().catch(reject);
    });
    return Array.from({ length: count }, (_, id) => arrived.get(id)!.channel(`preempt ${id}`));
  } catch (error) {
    for (const connection of arrived.values()) connection.destroy();
    throw error;
  } finally {
    over = true;
    for (const connection of unknown) connection.destroy();
  }
}

/** Bytes that say what somebody is. */
const MAGIC_BYTES = 4;

function isEnough(bytes: Buffer): boolean {
  if (bytes.length < MAGIC_BYTES) return false;
  return bytes.length >= PREEMPT_INITIAL_BYTES || bytes.readUInt32BE(0) !== PREEMPT_MAGIC;
}

/** Whoever was cut off before its first bytes were whole shows at the source too. */
function isPreempt(bytes: Buffer): boolean {
  return bytes.length >= PREEMPT_INITIAL_BYTES && bytes.readUInt32BE(0) === PREEMPT_MAGIC;
}
