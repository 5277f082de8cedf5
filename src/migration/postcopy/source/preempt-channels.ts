import { encodePreemptInitial } from '../../../wire/index.ts';
import { type Dial, dialAll } from '../../source/dial-all.ts';
import type { Links } from '../../source/links.ts';

/**
 * Adds `count` preempt channels to `links`, which have left when it resolves. Several say at once which they are; a single one says nothing of itself, as
 * QEMU has it. `failed`: one has broken. Throws TransportError, MIGRATION_CHANNEL_NOT_TAKEN.
 */
export async function connectPreempt(
  links: Links,
  dial: Dial,
  count: number,
  signal: AbortSignal,
  failed: (error: Error) => void,
): Promise<void> {
  const roles = count === 1 ? ['preempt'] : Array.from({ length: count }, (_, id) => `preempt ${id}`);
  const channels = await dialAll({
    dial,
    roles,
    signal,
    compare: 'is postcopy-preempt',
    take: (connection, id) => connection.channel(roles[id]),
    drop: (channel) => channel.destroy(),
  });
  const outputs = channels.map((channel) => links.addUrgent(channel, failed));
  if (count === 1) return;
  for (const [id, output] of outputs.entries()) {
    await output.put(encodePreemptInitial(id, count));
    await output.drained();
  }
}
