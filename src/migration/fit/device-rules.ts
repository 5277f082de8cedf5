import { about, byName, fail, type Rule, warn } from './rule.ts';

const devices: Rule = {
  name: 'devices',
  doc: 'Both have the same devices plugged in, counted by type.',
  judge: about(
    (facts) => facts.devices,
    (source, destination) =>
      byName(
        source,
        destination,
        (type, here = 0, there = 0) => {
          const difference = `${type}: ${here} at the source, ${there} at the destination`;
          if (here > there) return fail(difference);
          return here < there ? warn(`${difference}: nothing fills the state of the others`) : undefined;
        },
        `${Object.values(source).reduce((sum, count) => sum + count, 0)} plugged in`,
      ),
  ),
};

const pci: Rule = {
  name: 'pci',
  doc: 'The same function is at each PCI address: sections in the stream are named by address.',
  judge: about(
    (facts) => facts.pci,
    (source, destination) =>
      byName(
        source,
        destination,
        (address, here, there) => {
          if (here === there) return undefined;
          if (there === undefined) return fail(`${address} (${here}) is at the source only`);
          if (here === undefined) return warn(`${address} (${there}) is at the destination only`);
          return fail(`${address}: ${here} at the source, ${there} at the destination`);
        },
        `${Object.keys(source).length} functions`,
      ),
  ),
};

const vfio: Rule = {
  name: 'vfio',
  doc: 'Each VFIO device has its counterpart at the same address; with switchover-ack both can send and load state while they run, or neither.',
  judge: (source, destination) => {
    // An end that cannot be asked may have them all the same.
    if (source.vfio === undefined || destination.vfio === undefined) return [];
    const acknowledged = source.capabilities?.['switchover-ack'] === true;
    const bySection = (list: typeof source.vfio) => Object.fromEntries((list ?? []).map((one) => [one.section, one]));
    if (source.vfio.length + destination.vfio.length === 0) return [];
    return byName(
      bySection(source.vfio),
      bySection(destination.vfio),
      (section, here, there) => {
        if (there === undefined) return fail(`${here?.name} (${section}) is at the source only`);
        if (here === undefined)
          return fail(`${there.name} (${section}) is at the destination only: its state never comes`);
        if (!acknowledged || here.precopy === there.precopy) return undefined;
        const which = here.precopy ? 'source' : 'destination';
        return fail(`${here.name} (${section}) has PRE_COPY at the ${which} only, so switchover-ack cannot work`);
      },
      `${source.vfio.length} devices`,
    );
  },
};

export const DEVICE_RULES: readonly Rule[] = [devices, pci, vfio];
