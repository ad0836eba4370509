package container

import "strings"

// The words of random names: something pleasant, and somebody who found something out.
var (
	adjectives = strings.Fields(`
able agile alert amber ample apt ardent astute avid azure balmy bold bonny brave breezy bright brisk bubbly calm candid
careful cheery chief civil clean clear clever coastal cool cordial cosy crafty crisp curious dapper daring dashing deft
devoted direct dreamy driven dry eager earnest easy elated elegant epic fair famed fancy fearless festive fine firm fit
fleet fluent fond frank free fresh friendly frosty funny gallant gentle giddy gifted glad gleaming golden good graceful
grand great green handy happy hardy hearty helpful honest hopeful humble ideal jaunty jolly jovial joyful keen kind
lasting lavish leading level light lively loyal lucid lucky lunar mellow merry mighty mild modest neat nimble noble
novel open patient peppy placid plucky poised polite prime proud prudent quick quiet rapid ready regal rested robust rosy
rugged sage salty sane sassy serene sharp shiny silent silver simple sincere smart smooth snappy snug solid spirited
spry stable steady stellar still stoic strong sturdy suave subtle sunny super sure swift tender thrifty tidy timely
tranquil trim trusty upbeat valiant vast vibrant vigilant vivid warm watchful wavy willing windy wise witty worthy zany
zealous zen zesty`)

	surnames = strings.Fields(`
abel agnesi ampere antonelli archimedes aristarchus avogadro babbage banach bardeen bassi becquerel bell bernoulli
berners bessel bohr boltzmann bolyai boole bose brahe brahmagupta braun brunel burnell cantor carnot carson cartwright
cauchy cavendish celsius cerf chandra chatelet chebyshev church clausius coulomb cray crick curie cuvier dalton darwin
davy descartes diffie dijkstra dirac doppler easley eddington edison ehrlich einstein engelbart erdos euclid euler
faraday fermat fermi feynman fibonacci fleming foucault fourier franklin fresnel galileo galois galvani gauss germain
gibbs godel goodall haber hahn halley hamilton hamming harvey hausdorff heisenberg hellman helmholtz herschel hertz
hilbert hipparchus hodgkin hooke hopper hoover hubble hutton huygens hypatia jacobi jacquard jenner johnson joliot joule
kelvin kepler khayyam kilby knuth koch kolmogorov lagrange lamarr lamport laplace laue lavoisier leakey leavitt legendre
leibniz linnaeus liskov lorentz lovelace lyell mach marconi maxwell mcclintock mccarthy mead meitner mendel mendeleev
mercator minkowski mirzakhani montgolfier morse nash nernst neumann newcomen newton nightingale nobel noether noyce
ohm oppenheimer ostwald papin pascal pasteur pauli pauling payne perlman planck poincare poisson priestley ptolemy
pythagoras raman ramanujan rayleigh ride riemann ritchie robinson roentgen rubin rutherford sagan salk sanger
schrodinger shannon siemens snell somerville stokes swartz swirles tesla thales thompson torricelli turing vaughan
vesalius villani viete volta wallace watt weber wegener weierstrass wiener wilkes wing wright wu yalow yonath young zuse`)
)
