import { findPeer, type QemuPeer, REQUIRED_PEERS } from '../../src/qemu/index.ts';

/** A SIGTERM or SIGINT (test runner's deadline, Ctrl-C) ends in an orderly exit, so that no QEMU outlives its test. */
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1));

/** Peers a test wants, or the reason to skip it. With CI=true a missing required peer throws. */
export async function peersOrReason(
  names: readonly string[] = REQUIRED_PEERS,
): Promise<{ readonly peers: readonly QemuPeer[]; readonly skip: string | false }> {
  const peers: QemuPeer[] = [];
  const missing: string[] = [];
  for (const name of names) {
    const peer = await findPeer(name);
    if (peer === undefined) missing.push(name);
    else peers.push(peer);
  }
  if (missing.length === 0) return { peers, skip: false };
  const reason = `no QEMU ${missing.join(', ')} here (npm run setup -- --peers installs what can be had)`;
  if (process.env['CI'] === 'true') throw new Error(reason);
  return { peers, skip: reason };
}
