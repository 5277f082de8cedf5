/** `migrate --postcopy` between two real QEMUs, of which one is told to give the connection up on the way. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { explain } from '../../src/base/index.ts';
import { migrate } from '../../src/porcelain/index.ts';
import { REQUIRED_PEERS } from '../../src/qemu/index.ts';
import { parseAssignments } from '../../src/settings/index.ts';
import { peerOrSkip } from '../support/peers.ts';
import { QemuLab } from '../support/qemu-lab.ts';

for (const version of REQUIRED_PEERS) {
  const { peer, skip } = await peerOrSkip(version);
  for (const uri of [undefined, 'tcp:127.0.0.1:0']) {
    test(`QEMU ${version}, ${uri ?? 'a private socket'}: the connection is made anew`, { skip }, async (t) => {
      assert(peer !== undefined);
      const lab = await QemuLab.open(t, { pageCount: 8192 });
      const machine = 'pc-i440fx-7.2';
      const [a, b] = [await lab.start(peer, { machine }), await lab.start(peer, { machine, incoming: true })];
      const notices: string[] = [];
      // Before the guest runs there a broken connection is the end of it (QEMU up to 10.1).
      const broken = b.qmp.waitForEvent('RESUME', { timeoutMs: 60_000 }).then(async () => {
        await a.qmp.waitForMigration(['postcopy-active']);
        await a.qmp.execute('migrate-pause');
        await a.qmp.waitForMigration(['postcopy-active', 'completed']);
        await a.qmp.execute('migrate-set-parameters', { 'max-postcopy-bandwidth': 0 });
      });
      const outcome = await migrate({
        source: a.qmpPath,
        destination: { qmp: b.qmpPath, uri },
        settings: parseAssignments([
          'postcopy-preempt=on',
          'max-bandwidth=8M',
          'max-postcopy-bandwidth=4M',
          'events=on',
        ]),
        unchecked: true,
        postcopy: { afterRounds: 0, notice: (text) => notices.push(text) },
      });
      await broken;
      assert.equal(outcome.status, 'completed', `${outcome.message} ${explain(outcome.error)}`);
      assert.match(notices.join(), /making another one/);
      await lab.guest.check([a, b]);
    });
  }
}
