/** The emulated VF in a thread of its own. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { EmulatedVf, ERRNO, vfOptions } from '../../../src/vfio/index.ts';
import { refusal } from '../../contract/device.ts';
import { MIB, SMALL } from './support.ts';

test('in its thread: hanging and dying devices answer everyone when they are closed or gone', async () => {
  const open = (fault: string) =>
    EmulatedVf.open({ name: 'vf', options: vfOptions({ ...SMALL, faults: [fault] }), dmaIova: 0 });
  const hung = await open('arc RUNNING>RUNNING_P2P:hang');
  const stopping = refusal(hung.setState('STOP'));
  const waiting = refusal(hung.state());
  await hung.close();
  assert.deepEqual([(await stopping).code, (await waiting).code], ['VFIO_GONE', 'VFIO_GONE']);
  const dying = await open('stop-copy size:die');
  assert.equal((await refusal(dying.stopCopySize())).code, 'VFIO_GONE');
  assert.equal((await refusal(dying.state())).code, 'VFIO_GONE');
  await dying.close();
  const refused = await refusal(open('open:fail,errno=ENODEV'));
  assert.deepEqual([refused.code, refused.errno], ['VFIO_OPERATION', ERRNO.ENODEV]);
  await refusal(open('open:die'));
});

test('in its thread: DMA over messages is done before the device is quiet', async () => {
  const options = vfOptions({ ...SMALL, 'dma-size': MIB, 'dma-logging': false });
  const vf = await EmulatedVf.open({ name: 'vf', options, dmaIova: 0x1000_0000 });
  try {
    const memory = Buffer.alloc(MIB);
    let busy = 0;
    let writes = 0;
    await vf.attachDma({
      read: async () => {},
      write: async (iova, bytes) => {
        busy++;
        await new Promise((resolve) => setTimeout(resolve, 5));
        bytes.copy(memory, iova - 0x1000_0000);
        writes++;
        busy--;
      },
    });
    while (writes < 50) await new Promise((resolve) => setTimeout(resolve, 2));
    await vf.setState('STOP');
    assert.equal(busy, 0);
    const seen = writes;
    const { dmaOperations, dmaFailures } = await vf.evidence();
    assert.equal(writes, seen);
    assert.deepEqual([2 * dmaOperations, dmaFailures], [writes, 0]);
  } finally {
    await vf.close();
  }
});
