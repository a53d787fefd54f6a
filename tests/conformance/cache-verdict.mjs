// What came of http-tests/cache-tests: a table, and whether it is what docs/conformance.md says.
//
//   node cache-verdict.mjs WORK DOCS
import fs from 'fs'

const [work, docs] = process.argv.slice(2)
const { default: suites } = await import(`${work}/package/tests/index.mjs`)
const read = path => JSON.parse(fs.readFileSync(path, 'utf8'))
const results = read(`${work}/results.json`)
const known = new Map()
let least = 0
for (const line of fs.readFileSync(docs, 'utf8').split('\n')) {
  const row = line.match(/^\| `([\w=-]+)` \| (.+) \|$/)
  if (row) known.set(row[1], row[2])
  least = Number(line.match(/^\| dfdaemon \| at least (\d+) /)?.[1] ?? least)
}

const required = suite => suite.tests.filter(test =>
  !test.browser_only && (test.kind ?? 'required') === 'required')
const passed = (of, tests) => tests.filter(test => of[test.id] === true).length
const all = suites.flatMap(required)

console.log('required of a cache'.padEnd(34), 'passed', ' of')
for (const suite of suites) {
  const tests = required(suite)
  if (tests.length === 0) continue
  console.log(suite.name.padEnd(34), String(passed(results, tests)).padStart(6), String(tests.length).padStart(3))
}
console.log('all'.padEnd(34), String(passed(results, all)).padStart(6), String(all.length).padStart(3))
const optional = suites.flatMap(suite => suite.tests)
  .filter(test => !test.browser_only && test.kind === 'optimal')
console.log('optional'.padEnd(34), String(passed(results, optional)).padStart(6), String(optional.length).padStart(3))
for (const other of ['nginx', 'trafficserver', 'squid']) {
  const published = read(`${work}/package/results/${other}.json`)
  console.log(`all, ${other} as published`.padEnd(34), String(passed(published, all)).padStart(6))
}

for (const test of all) {
  const result = results[test.id]
  if (result === true) {
    if (known.has(test.id)) console.log(`passes, and docs/conformance.md says that it fails: ${test.id}`)
  } else if (!known.has(test.id)) {
    console.log(`fails, and docs/conformance.md does not say why: ${test.id}: ${result}`)
  }
}
if (passed(results, all) < least) {
  console.log(`fewer than the ${least} that docs/conformance.md says`)
  process.exit(1)
}
