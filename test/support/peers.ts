import { findPeer, type QemuPeer } from '../../src/qemu/index.ts';

/** A SIGTERM or SIGINT (test runner's deadline, Ctrl-C) ends in an orderly exit, so that no QEMU outlives its test. */
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1));

/** The QEMU of that name, or the reason to skip what needs it. With CI=true there is no such reason: it throws. */
export async function peerOrSkip(
  name: string,
): Promise<{ readonly peer: QemuPeer; readonly skip: false } | { readonly peer?: never; readonly skip: string }> {
  const peer = await findPeer(name);
  if (peer !== undefined) return { peer, skip: false };
  const skip = `no QEMU ${name} here (node scripts/setup.mjs --peers installs what can be had)`;
  if (process.env['CI'] === 'true') throw new Error(skip);
  return { skip };
}
